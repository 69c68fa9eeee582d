"""A small data set on disk."""

import json

import pytest
from PIL import Image

from avar_fast.data import load_rows


@pytest.fixture
def rows(tmp_path):
    records = []
    for i, size in enumerate([(56, 56), (84, 28), (28, 28), None, (56, 56)]):
        images = []
        if size is not None:
            Image.new("RGB", size, (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
            images = [f"{i}.png"]
        text = "<image>" * len(images) + "Add row 1. Answer at once."
        records.append(
            {"messages": [{"role": "user", "content": text}], "images": images, "answer": str(i)}
        )
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, records)))
    return load_rows(str(tmp_path / "rows.jsonl"))
