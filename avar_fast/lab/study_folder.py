"""What a study keeps in its folder: a marker with its settings, and parts that are either whole or
not there."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import load_recipe
from .runs import CONFIGS, TrainingRun, checkpoint, train_here


def enter_folder(out: Path, marker: str, settings: dict) -> None:
    """Makes a study's folder, or exits if it is none of this study's.

    Args:
        out: the folder.
        marker: name of the file that holds the settings.
        settings: all that decides the study's results.
    """
    path, text = out / marker, json.dumps(settings, indent=1)
    if path.is_file():
        before, now = json.loads(path.read_text()), json.loads(text)
        others = [key for key in before | now if before.get(key) != now.get(key)]
        if others:
            sys.exit(
                f"error: --out must be a new folder or one of a study with the same settings; {out}"
                f" holds a study with other {' and '.join(others)}. Name another."
            )
        return
    if out.exists() and any(out.iterdir()):
        sys.exit(f"error: --out must be a new folder; {out} holds other files. Name another.")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_whole(path: Path, make: Callable[[Path], object]) -> None:
    """Makes a folder, if it is not there; under another name until it is whole."""
    if path.exists():
        return
    making = path.with_name(f"{path.name}-making")
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    make(making)
    making.rename(path)


def write_whole(path: Path, result: dict) -> None:
    """Writes a JSON file; under another name until it is whole."""
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(result, indent=1))
    unfinished.rename(path)


def train_whole(run: TrainingRun, folder: Path, data: Path, seed: int) -> None:
    """Trains under another name until the run is whole. Keeps the weights and the log."""
    making = replace(run, key=f"{run.key}-making")
    shutil.rmtree(folder / making.key, ignore_errors=True)
    train_here(making, folder, data / "train.jsonl", seed)
    # A trainer that receives SIGTERM saves what it has and ends as if it were done.
    steps = load_recipe(CONFIGS / run.recipe, list(run.settings)).train.steps
    done = read_lines(folder / making.key / "log.jsonl")[-1]["step"]
    if done < steps:
        sys.exit(
            f"error: {run.title} was stopped at step {done} of {steps}; the same command trains it"
            " anew."
        )
    # The optimizer's state takes four times the room of the weights; no run continues from it.
    shutil.rmtree(checkpoint(folder, making.key) / "engine")
    (folder / making.key).rename(folder / run.key)


def read_lines(path: Path) -> list[dict]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
