"""The miniature AVAR study, through the real entry point: ``python -m avar_fast.lab.demo --out
runs/demo``.

Makes the lab's data and model, trains its base model, cold-starts it with and without AGTO, runs
GRPO with and without VARS from the AGTO checkpoint, evaluates each on held-out digits, prints a
table and writes a report. Every training run is ``torchrun -m avar_fast.train`` on a recipe in
configs/.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from ..attention import attach
from ..data import Rows, load_rows
from ..evaluation import evaluate
from ..loading import load
from ..report import Entry, write_report
from ..report.attention_maps import attention_map
from ..report.page import text_table
from .curriculum import Phase, write_curriculum
from .model import save_base
from .tokenizer import DEFAULT_SYSTEM
from .world import WorldConfig

CONFIGS = Path(__file__).parents[2] / "configs"
MARKER = "demo.json"  # a folder that holds it was made by the demo and may be made anew
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
NUM_PICTURES = 4
# One thread a process, two processes: threads of one process wait for each other at every tensor,
# and on a busy machine that costs more than a hundredfold.
NUM_RANKS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Stage:
    """One training run and its row in the table."""

    key: str
    title: str
    recipe: str
    start: str
    """Key of the run it starts from, or "init" for the untrained model."""


STAGES = (
    Stage("base", "base model", "lab-base.yaml", "init"),
    Stage("sft", "cold start", "lab-sft.yaml", "base"),
    Stage("agto", "cold start + AGTO", "lab-sft-agto.yaml", "base"),
    Stage("grpo", "AGTO, then GRPO", "lab-grpo.yaml", "agto"),
    Stage("vars", "AGTO, then GRPO + VARS", "lab-grpo-vars.yaml", "agto"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="avar_fast.lab.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0, help="of data, model and training")
    options = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    started = time.perf_counter()
    out = options.out.resolve()
    _make_folder(out)
    _say(
        "making images of handwritten digits, questions, and an untrained Qwen2.5-VL of 1.1 M"
        " parameters"
    )
    learn = write_curriculum(out / "data" / "base", CURRICULUM, options.seed)
    tune = write_curriculum(out / "data" / "tune", TUNE, options.seed + 1)
    test = write_curriculum(out / "data" / "test", TEST, options.seed, split="test")
    save_base(out / "init", options.seed)

    rows = load_rows(str(test))
    entries = []
    for number, stage in enumerate(STAGES, start=1):
        _say(f"[{number}/{len(STAGES)}] {stage.title}")
        data = learn if stage.key == "base" else tune
        seconds = _train(stage, out, data, options.seed)
        entries.append(_measure(stage, out, rows, seconds))
    minutes = (time.perf_counter() - started) / 60
    intro = (
        f"Seed {options.seed}, {len(rows)} held-out questions on images of handwritten digits,"
        f" greedy generation; {os.cpu_count()} CPU cores, {minutes:.1f} minutes in all."
    )
    write_report(out / "report.html", "The miniature AVAR study", intro, entries)
    table = text_table(entries)
    (out / "table.md").write_text(table + "\n")
    print(f"\n{table}\n\n{intro}\nReport: {out / 'report.html'}")


def _make_folder(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / MARKER).is_file():
        sys.exit(
            f"error: --out must be a new folder or one an earlier demo made; {out} holds other"
            " files. Name another."
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).write_text("{}")


def _say(text: str) -> None:
    tqdm.write(f"\n{text}", file=sys.stderr)


def _checkpoint(out: Path, key: str) -> Path:
    return out / "init" if key == "init" else out / key / "latest"


def _train(stage: Stage, out: Path, data: Path, seed: int) -> float:
    """Runs the stage's recipe with torchrun; returns its seconds."""
    command = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={NUM_RANKS}",
        ),
        *("-m", "avar_fast.train", str(CONFIGS / stage.recipe)),
        f"model.path={_checkpoint(out, stage.start)}",
        f"data.path={data}",
        f"train.output_dir={out / stage.key}",
        f"train.seed={seed}",
    ]
    started = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        sys.exit(
            f"error: {stage.title} failed with exit code {done.returncode}; its messages are above."
        )
    return time.perf_counter() - started


def _measure(stage: Stage, out: Path, rows: Rows, train_seconds: float) -> Entry:
    loaded = load(str(_checkpoint(out, stage.key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    parts = (loaded.model, loaded.tokenizer, loaded.image_processor)
    result = evaluate(
        *parts,
        rows,
        system_prompt=DEFAULT_SYSTEM,
        batch_size=100,
        max_new_tokens=MAX_NEW_TOKENS,
        name="held-out digits",
    )
    (out / stage.key / "evaluation.json").write_text(json.dumps(result.as_dict(), indent=1))
    maps = [
        attention_map(*parts, rows[i], DEFAULT_SYSTEM, MAX_NEW_TOKENS) for i in range(NUM_PICTURES)
    ]
    log = [json.loads(line) for line in (out / stage.key / "log.jsonl").read_text().splitlines()]
    return Entry(stage.title, result, train_seconds, log, maps)


if __name__ == "__main__":
    main()
