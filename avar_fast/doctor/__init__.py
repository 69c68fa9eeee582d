"""Says what this machine has, what runs on it, and what a recipe needs and does not find:
``python -m avar_fast.doctor [RECIPE.yaml ...] [section.key=value ...]``.

It needs torch alone. Other packages are imported in a child process, so that a broken one is named
and does not end the program.
"""
