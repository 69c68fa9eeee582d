"""Shared parts of the lab's studies: their folder, their data, and training runs by torchrun with
the recipes in configs/."""

import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import yaml
from tqdm import tqdm

from ..config import load_recipe
from .curriculum import Phase
from .world import WorldConfig

CONFIGS = Path(__file__).parents[2] / "configs"
ONE_DIGIT = WorldConfig(rows=1, cols=1, smaller=True)
CHAIN, MIXED = WorldConfig(style="chain"), WorldConfig()
CURRICULUM = (
    Phase((ONE_DIGIT,), pool=2_000, count=120 * 32),
    Phase((CHAIN,), pool=4_800, count=150 * 32),
    Phase((MIXED,), pool=19_200, count=600 * 32),
)
TUNE = (Phase((MIXED,), pool=6_400, count=6_400),)
# Seven test questions in eight ask to think first, as a reasoning model is asked; what a model of
# this size learns of answers at once in the demo's minutes stands in a column of its own.
TEST = (Phase((CHAIN, CHAIN, CHAIN, MIXED), pool=125, count=500),)
MAX_NEW_TOKENS = 24
# One thread a process, two processes: threads of one process wait for each other at every tensor,
# and on a busy machine that costs more than a hundredfold.
NUM_RANKS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class TrainingRun:
    """One training run and its row in the table."""

    key: str
    title: str
    recipe: str
    start: str
    """Key of the run it starts from, or "init" for the untrained model."""
    settings: tuple[str, ...] = ()
    """More of ``section.key=value`` for the recipe."""


def make_folder(out: Path, marker: str) -> None:
    """Makes ``out`` anew, if it is empty or holds the file ``marker`` of an earlier study."""
    if out.exists() and any(out.iterdir()) and not (out / marker).is_file():
        sys.exit(
            f"error: --out must be a new folder or one that an earlier study of the same kind made"
            f" (with {marker} in it); {out} holds other files. Name another."
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / marker).write_text("{}")


def read_recipes(names: Iterable[str]) -> dict[str, dict]:
    """Settings of recipes in configs/, for a study's marker.

    Files and folders are left out: a study names its own. Comments do not count.
    """

    def without_paths(node: dict) -> dict:
        return {
            key: without_paths(value) if isinstance(value, dict) else value
            for key, value in node.items()
            if key not in ("path", "output_dir")
        }

    texts = {name: (CONFIGS / name).read_text(encoding="utf-8") for name in sorted(names)}
    return {name: without_paths(yaml.safe_load(text)) for name, text in texts.items()}


def say(text: str) -> None:
    """A line on stderr that leaves progress bars whole."""
    tqdm.write(f"\n{text}", file=sys.stderr)


def checkpoint(out: Path, key: str) -> Path:
    """Where the run's newest checkpoint is."""
    return out / "init" if key == "init" else out / key / "latest"


def train(run: TrainingRun, out: Path, data: Path, seed: int, num_ranks: int = NUM_RANKS) -> float:
    """Runs the run's recipe with torchrun, one thread a rank; returns its seconds.

    Exits the program where the run fails.
    """
    command = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={num_ranks}",
        ),
        *("-m", "avar_fast.train", *_arguments(run, out, data, seed)),
    ]
    started = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        sys.exit(
            f"error: {run.title} failed with exit code {done.returncode}; its messages are above."
        )
    need_all_steps(run, out / run.key)
    return time.perf_counter() - started


def need_all_steps(run: TrainingRun, made: Path) -> None:
    """Exits the program where a run ended before its last step.

    A trainer that receives SIGTERM saves what it has and ends as if it were done.

    Args:
        run: the run.
        made: its folder.
    """
    steps = load_recipe(CONFIGS / run.recipe, list(run.settings)).train.steps
    *_, last = (made / "log.jsonl").read_text().splitlines()
    done = json.loads(last)["step"]
    if done < steps:
        sys.exit(
            f"error: {run.title} was stopped at step {done} of {steps}; the same command trains it"
            " anew."
        )


def train_here(run: TrainingRun, out: Path, data: Path, seed: int) -> None:
    """Runs the run's recipe in this process, as a single rank; its output goes to
    ``{run.key}.txt`` in ``out``. A process can train only once.

    Exits the program where the run fails.
    """
    before, sys.argv = sys.argv, ["avar_fast.train", *_arguments(run, out, data, seed)]
    try:
        with (out / f"{run.key}.txt").open("w") as log, _output_to(log):
            runpy.run_module("avar_fast.train", run_name="__main__")
    finally:
        sys.argv = before


@contextlib.contextmanager
def _output_to(log: TextIO) -> Iterator[None]:
    """Writes the output of this process into a file, with that of programs it starts: DeepSpeed
    tries a linker, which writes to the descriptor."""
    error = os.dup(2)
    os.dup2(log.fileno(), 2)
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield
    finally:
        os.dup2(error, 2)
        os.close(error)


def _arguments(run: TrainingRun, out: Path, data: Path, seed: int) -> list[str]:
    """Of the trainer."""
    return [
        str(CONFIGS / run.recipe),
        f"model.path={checkpoint(out, run.start)}",
        f"data.path={data}",
        f"train.output_dir={out / run.key}",
        f"train.seed={seed}",
        *run.settings,
    ]
