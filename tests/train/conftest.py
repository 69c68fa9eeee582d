"""A tiny model, rows with and without images, and a recipe."""

import json

import pytest

from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    save_base(folder / "model", seed=0)
    write_rows(folder / "rows", WorldConfig(), "train", num_rows=24, seed=0)
    recipe = {
        "stage": "sft",
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "data": {"path": str(folder / "rows" / "train.jsonl"), "workers": 0},
        "optim": {"lr": 1e-3},
        "train": {"output_dir": "unset", "steps": 4, "batch_size": 4, "micro_batch_size": 4},
        "agto": {"enabled": True, "alpha": 0.01, "beta": 0.01},
        "grpo": {"group_size": 2, "max_new_tokens": 6},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    lines = (folder / "rows" / "train.jsonl").read_text().splitlines()
    for number in range(6):
        message = {"role": "user", "content": f"Add row {number % 2 + 1}." + "?" * number}
        lines.append(json.dumps({"messages": [message], "answer": str(number)}))
    (folder / "rows" / "mixed.jsonl").write_text("\n".join(lines[12:]))
    bad = [
        '{"messages": [{"ro',
        lines[0].replace(".png", ".gif"),
        lines[0].replace("Add", "?" * 99),
    ]
    (folder / "rows" / "dirty.jsonl").write_text("\n".join(lines[12:] + bad))
    return folder
