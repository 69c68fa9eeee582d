"""VARD: writes visually anchored reasoning for rows with image, question and answer (arXiv
2603.03825).

The three steps are describe, reason and rewrite. A vision model describes the image. A reasoning
model, which sees only the description, writes a long chain of thought. A third model replaces every
reference to the description by a reference to the image. Each model is behind an endpoint that
speaks OpenAI's HTTP protocol.

    python -m avar_fast.synthesize RECIPE.yaml [section.key=value ...]
"""
