"""VARD: visually anchored reasoning for rows with image, question and answer (arXiv 2603.03825).

A vision model describes the image; a reasoning model, which sees only the description, thinks at
length; a third model turns every appeal to the description into one to the image. Each speaks
OpenAI's HTTP protocol.

    python -m avar_fast.synthesize RECIPE.yaml [section.key=value ...]
"""
