"""A model of the lab with random weights, and rows long enough for vLLM's prefix cache to hold a
block of their prompts."""

import json

import numpy as np
import pytest
import torch

from avar_fast.lab.digits import draw_grid
from avar_fast.lab.model import build_image_processor, build_model, build_tokenizer


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"), tied=True)


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def long_model(tmp_path_factory):
    """For prompts that the lab's model has too few positions for."""
    return save(tmp_path_factory.mktemp("long"), tied=True, positions=8192)


def save(folder, tied, positions=None):
    tokenizer = build_tokenizer()
    built = build_model(tokenizer, 0)
    if positions:
        built.config.text_config.max_position_embeddings = positions
    if not tied:
        built.config.tie_word_embeddings = False
        built.config.text_config.tie_word_embeddings = False
        built.lm_head.weight = torch.nn.Parameter(built.lm_head.weight.detach().clone())
    built.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """A long prompt with an image, one with two images, a short one, and one of text alone."""
    folder = tmp_path_factory.mktemp("rows")
    long = " ".join(["Add row 1, then add column 2."] * 8)
    questions = [
        (f"<image>{long}", [(2, 2)]),
        ("<image><image>Add row 1.", [(1, 2), (3, 1)]),
        ("<image>Add column 1.", [(1, 1)]),
        (f"Add 3 + 4. {long}", []),
    ]
    records = []
    for i, (question, shapes) in enumerate(questions):
        names = []
        for j, (height, width) in enumerate(shapes):
            names.append(f"{i}-{j}.png")
            pictures = np.random.default_rng(i).integers(1000, size=(height, width))
            draw_grid(pictures, None).save(folder / names[-1])
        turns = [{"role": "user", "content": question}]
        records.append({"messages": turns, "images": names, "answer": str(i)})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
