"""Logs of a run: a JSONL file, a progress bar on rank 0, and optionally TensorBoard and W&B."""

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..config import Recipe, dump_recipe
from ..progress import progress

Metrics = Mapping[str, float | dict[int, float] | None]
"""{name: value, or values by layer}"""


class Tracker:
    """Writes the metrics of steps; does nothing on ranks other than 0.

    Args:
        recipe: the recipe of the run.
        rank: rank of this process.
        first_step: steps that were done before, in a resumed run.
    """

    def __init__(self, recipe: Recipe, rank: int, first_step: int) -> None:
        self.active, self.recipe = rank == 0, recipe
        self.started, self.clock_is_new = time.perf_counter(), first_step > 0
        if not self.active:
            return
        folder = Path(recipe.train.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(dump_recipe(recipe))
        num_broken = cut_back(folder / "log.jsonl", first_step)
        self.file = (folder / "log.jsonl").open("a")
        self.bar = progress(total=recipe.train.steps, initial=first_step, desc=recipe.stage)
        if num_broken:
            self.say(f"log.jsonl: dropped {num_broken} line(s) that an interruption had cut off.")
        self.writers = [_writer(name, folder, recipe) for name in recipe.tracking.loggers]

    def log(self, step: int, metrics: Metrics, shown: tuple[str, ...] = ()) -> None:
        """Records the metrics of a step.

        Args:
            step: number of the step, counted from 1.
            metrics: values by name; None is null in the JSONL log and left out elsewhere. Values by
                layer are an object in the JSONL log and ``NAME/LAYER`` elsewhere.
            shown: names of the metrics in the progress bar.
        """
        if not self.active:
            return
        known = _scalars(metrics)
        self.bar.update(step - self.bar.n)
        peak = peak_memory_gib()
        postfix = {name: f"{known[name]:.3g}" for name in shown if name in known}
        self.bar.set_postfix(**postfix, GiB=f"{peak:.1f}")
        if step % self.recipe.tracking.log_every and step != self.recipe.train.steps:
            return
        seconds = time.perf_counter() - self.started
        line = {"step": step, "seconds": round(seconds, 3), **metrics, "peak_gib": round(peak, 3)}
        if self.clock_is_new:  # the first line after a resume: ``seconds`` start anew
            line["resumed"] = True
            self.clock_is_new = False
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for write in self.writers:
            write(step, known)

    def say(self, text: str) -> None:
        """Prints text above the progress bar, on rank 0."""
        if self.active:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if self.active:
            self.bar.close()
            self.file.close()


def cut_back(log: Path, first_step: int) -> int:
    """Removes from a JSONL file the lines of steps after ``first_step``, which a resumed run
    repeats, and the lines that an interruption cut off, which no reader can parse.

    Returns:
        The number of lines that an interruption had cut off.
    """
    if not log.is_file():
        return 0
    broken = 0
    kept = log.with_name(log.name + ".partial")
    with log.open() as lines, kept.open("w") as out:
        for line in lines:
            step = _step_of(line)
            broken += step < 0
            if 0 <= step <= first_step:
                out.write(line.rstrip("\n") + "\n")
    kept.replace(log)
    return broken


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: allocated GPU memory, or resident memory without a
    GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux


def _scalars(metrics: Metrics) -> dict[str, float]:
    """The metrics that have a value, those by layer one by one."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= {f"{name}/{layer}": x for layer, x in value.items()}
        elif value is not None:
            found[name] = value
    return found


def _step_of(line: str) -> int:
    """The step of a log line; -1 if the line is cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _writer(name: str, folder: Path, recipe: Recipe) -> Any:
    """A function (step, metrics) that passes metrics to an optional logger."""
    if name == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(folder / "tensorboard"))
        return lambda step, metrics: [
            board.add_scalar(key, value, step) for key, value in metrics.items()
        ]
    import wandb  # pyright: ignore[reportMissingImports]

    run = wandb.init(project="avar-fast", dir=str(folder), config={"recipe": dump_recipe(recipe)})
    return lambda step, metrics: run.log(metrics, step=step)
