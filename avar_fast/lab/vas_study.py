"""The studies of ``python -m avar_fast.vas`` on the lab: ``python -m avar_fast.lab.vas_study --out
runs/vas-study``.

Trains the paper's four kinds of checkpoint from one base model (base, multimodal cold start,
text-only cold start, multimodal cold start with AGTO), then scores and compares them, correlates
score and accuracy over checkpoints along all four runs, and ranks the base model's heads. A study
that was stopped goes on with the first run that is not finished.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from .curriculum import write_curriculum
from .model import save_base
from .runs import CURRICULUM, MAX_NEW_TOKENS, NUM_RANKS, TEST, TUNE, Stage, checkpoint, say, train
from .text_only import write_text_rows

MARKER = "vas-study.json"  # settings of the study that made the folder
BASE_EVERY, START_EVERY = 145, 50  # steps between checkpoints: six of the base, four of the others
STAGES = (
    Stage("base", "base model", "lab-base.yaml", "init"),
    Stage("multimodal", "multimodal cold start", "lab-sft.yaml", "base"),
    Stage("text-only", "text-only cold start", "lab-sft.yaml", "base"),
    Stage("agto", "multimodal cold start + AGTO", "lab-sft-agto.yaml", "base"),
)
HEAD_ROWS = 100


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="avar_fast.lab.vas_study", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/vas-study"))
    parser.add_argument("--seed", type=int, default=0, help="of data, model and training")
    parser.add_argument("--ranks", type=int, default=NUM_RANKS, help="of training, a thread each")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    out = options.out.resolve()
    _enter_folder(out, {"seed": options.seed, "ranks": options.ranks})
    data = _write_data(out, options.seed)
    for number, stage in enumerate(STAGES, start=1):
        say(f"[{number}/{len(STAGES)}] {stage.title}")
        _train_once(stage, out, data[stage.key], options.seed, options.ranks)

    models = [f"{stage.key}={checkpoint(out, stage.key)}" for stage in STAGES]
    points = {
        f"{stage.key}-{int(folder.name.partition('-')[2])}": folder
        for stage in STAGES
        for folder in sorted((out / stage.key / "checkpoints").iterdir())
    }
    shared = ("--data", str(data["test"]), "--batch-size", "100", "--dtype", "float32")
    answers = ("--max-new-tokens", str(MAX_NEW_TOKENS), "--checker", "exact")
    named = [f"{name}={folder}" for name, folder in points.items()]
    starts = [name for name in points if not name.startswith("base-")]
    results = [f"{name}={out / 'correlate' / 'results' / name}.json" for name in starts]
    studies = {
        f"Checkpoints against their base model (seed {options.seed})": (
            "compare",
            ["compare", *models, *shared],
        ),
        f"Score against accuracy, {len(points)} checkpoints along all runs": (
            "correlate",
            ["correlate", *named, *shared, *answers],
        ),
        f"The same, the {len(starts)} cold starts alone": (
            "correlate-starts",
            ["correlate", *results],
        ),
        "Heads of the base model": (
            "heads",
            ["heads", models[0], *shared, "--limit", str(HEAD_ROWS)],
        ),
    }
    text = "\n".join(
        f"## {title}\n\n{_study(command, out / folder)}"
        for title, (folder, command) in studies.items()
    )
    (out / "study.md").write_text(text)
    minutes = (time.perf_counter() - started) / 60
    print(f"{text}\n{minutes:.1f} minutes; {out / 'study.md'}")


def _enter_folder(out: Path, settings: dict[str, int]) -> None:
    marker = out / MARKER
    if marker.is_file():
        if json.loads(marker.read_text()) != settings:
            sys.exit(f"error: {out} holds a study with {marker.read_text()}. Name another --out.")
        return
    if out.exists() and any(out.iterdir()):
        sys.exit(f"error: --out must be a new folder; {out} holds other files. Name another.")
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(settings))


def _write_data(out: Path, seed: int) -> dict[str, Path]:
    """Rows by run, and the test's; the same bytes whenever they are written again."""
    say("making images of handwritten digits, questions, and an untrained Qwen2.5-VL")
    tune = write_curriculum(out / "data" / "tune", TUNE, seed + 1)
    save_base(out / "init", seed)
    return {
        "base": write_curriculum(out / "data" / "base", CURRICULUM, seed),
        "multimodal": tune,
        "text-only": write_text_rows(tune, out / "data" / "text-only" / "train.jsonl"),
        "agto": tune,
        "test": write_curriculum(out / "data" / "test", TEST, seed, split="test"),
    }


def _train_once(stage: Stage, out: Path, data: Path, seed: int, num_ranks: int) -> None:
    finished = out / stage.key / "seconds.json"
    if finished.is_file():
        return
    shutil.rmtree(out / stage.key, ignore_errors=True)
    every = BASE_EVERY if stage.key == "base" else START_EVERY
    settings = (f"train.save_every={every}", "train.keep_last=100")
    kept = replace(stage, settings=settings)
    finished.write_text(json.dumps(train(kept, out, data, seed, num_ranks)))


def _study(command: list[str], folder: Path) -> str:
    """Runs one study; returns what it prints."""
    whole = [sys.executable, "-m", "avar_fast.vas", *command, "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(whole, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {command[0]} failed; its message is above.")
    return done.stdout


if __name__ == "__main__":
    main()
