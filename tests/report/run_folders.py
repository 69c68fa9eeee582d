"""Folders as training leaves them, written by the trainer's own tracker and record of completions,
without a model."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch

from avar_fast.config import load_recipe
from avar_fast.train.grpo.completion_log import FILE, records_of
from avar_fast.train.tracker import Tracker

CONFIGS = Path(__file__).parents[2] / "configs"


def write_run(folder, metrics, recipe="lab-sft-agto", overrides=()):
    """A run that has logged these metrics, the first at step 1; returns its folder."""
    settings = load_recipe(
        CONFIGS / f"{recipe}.yaml",
        [f"train.output_dir={folder}", f"train.steps={len(metrics) + 1}", *overrides],
    )
    tracker = Tracker(settings, rank=0, first_step=0)
    for step, values in enumerate(metrics, start=1):
        tracker.log(step, values)
    tracker.close()
    return folder


def write_completions(folder, completions):
    """Completions of a run.

    Args:
        folder: of the run.
        completions: (step, row, text, number of tokens, {reward: value}) of each.
    """
    with (folder / FILE).open("w") as file:
        for step, row, text, num_tokens, rewards in completions:
            question = [{"content": [{"type": "image"}, {"type": "text", "text": "1 + 1?"}]}]
            response = SimpleNamespace(
                row=SimpleNamespace(where=row, messages=question),
                target_ids=torch.zeros(num_tokens, dtype=torch.long),
            )
            values = {
                name: torch.tensor([float("nan") if v is None else v])
                for name, v in rewards.items()
            }
            total = torch.tensor([sum(v for v in rewards.values() if v is not None)])
            (record,) = records_of([response], [text], values, total, torch.zeros(1))
            file.write(json.dumps({"step": step, **record}) + "\n")
