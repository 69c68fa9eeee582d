"""The studies of ``python -m avar_fast.studies`` on the lab.

``python -m avar_fast.lab.vas_study --out runs/vas-study`` runs them.

The program trains the paper's four kinds of checkpoint: one base model, and for every seed a
multimodal cold start, a text-only cold start and a multimodal cold start with AGTO. Each seed has
its own digits and order. The program then compares each seed's checkpoints with the base model,
correlates score and accuracy over the checkpoints of all runs, and ranks the base model's heads. A
stopped study continues with the first unfinished run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab.vas_study"):
    from ..tables import markdown, mean_and_deviation
    from .curriculum import write_curriculum
    from .model import save_base
    from .runs import (
        CURRICULUM,
        MAX_NEW_TOKENS,
        NUM_RANKS,
        TEST,
        TUNE,
        TrainingRun,
        checkpoint,
        read_recipes,
        say,
        train,
    )
    from .study_folder import enter_folder, only_study
    from .text_only import write_text_rows

MARKER = "vas-study.json"  # settings of the study that made the folder
BASE_EVERY, START_EVERY = 145, 50  # steps between checkpoints: six of the base, four of the others
BASE = TrainingRun("base", "base model", "lab-base.yaml", "init")
STARTS = (
    TrainingRun("multimodal", "multimodal cold start", "lab-sft.yaml", "base"),
    TrainingRun("text-only", "text-only cold start", "lab-sft.yaml", "base"),
    TrainingRun("agto", "multimodal cold start + AGTO", "lab-sft-agto.yaml", "base"),
)
HEAD_ROWS = 100


@needs("avar_fast.lab.vas_study")
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.lab.vas_study",
        description=__doc__,
        epilog="example:\n  python -m avar_fast.lab.vas_study --out runs/vas-study",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/vas-study"))
    parser.add_argument("--seeds", type=int, default=5, help="of the cold starts, from 0 on")
    parser.add_argument("--ranks", type=int, default=NUM_RANKS, help="of training, a thread each")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2, for a deviation; got {options.seeds}.")
    started = time.perf_counter()
    out = options.out.resolve()
    enter_folder(out, MARKER, settings(options.ranks))  # more seeds may join a study
    with only_study(out, MARKER):
        _train_all(out, options.seeds, options.ranks)
        found = _studies(out, options.seeds)
    text = "\n".join(f"## {title}\n\n{text}" for title, text in found.items())
    (out / "study.md").write_text(text)
    minutes = (time.perf_counter() - started) / 60
    print(f"{text}\n{minutes:.1f} minutes; {out / 'study.md'}")


def settings(num_ranks: int) -> dict:
    """All that decides the results of a seed; studies with other settings share no folder."""
    runs = (BASE, *STARTS)
    data = {"base": CURRICULUM, "tune": TUNE, "test": TEST}
    return {
        "ranks": num_ranks,
        "recipes": read_recipes({run.recipe for run in runs}),
        "runs": [[run.key, run.recipe, run.start, *run.settings] for run in runs],
        "checkpoints": [BASE_EVERY, START_EVERY],
        "data": {name: [asdict(phase) for phase in phases] for name, phases in data.items()},
    }


def _studies(out: Path, num_seeds: int) -> dict[str, str]:
    """Title -> what it found."""
    test = out / "data" / "test" / "test.jsonl"
    shared = ("--data", str(test), "--batch-size", "100", "--dtype", "float32")
    base, seeds = f"base={checkpoint(out, 'base')}", range(num_seeds)
    starts = {
        f"{run.key}#{seed}-{step}": folder
        for run in STARTS
        for seed in seeds
        for step, folder in _checkpoints(out / f"seed-{seed}" / run.key)
    }
    points = {f"base-{step}": folder for step, folder in _checkpoints(out / "base")} | starts
    named = [f"{name}={folder}" for name, folder in points.items()]
    answers = ("--max-new-tokens", str(MAX_NEW_TOKENS), "--checker", "exact")
    results = [f"{name}={out / 'correlate' / 'results' / name}.json" for name in starts]
    compared = {}
    for seed in seeds:
        folder = out / f"seed-{seed}"
        models = [f"{run.key}={checkpoint(folder, run.key)}" for run in STARTS]
        command = ["compare", base, *models, *shared]
        compared[f"Seed {seed} against its base model"] = _study(command, folder / "compare")
    correlated = {
        f"Score against accuracy, {len(points)} checkpoints along all runs": _study(
            ["correlate", *named, *shared, *answers], out / "correlate"
        ),
        f"The same, the {len(starts)} cold starts alone": _study(
            ["correlate", *results], out / "correlate-starts"
        ),
    }
    heads = ["heads", base, *shared, "--limit", str(HEAD_ROWS)]
    return {
        f"Checkpoints against their base model, {num_seeds} seeds": _over_seeds(out, num_seeds),
        **compared,
        **correlated,
        "Heads of the base model": _study(heads, out / "heads"),
    }


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of a run, in order."""
    return [
        (int(folder.name.partition("-")[2]), folder)
        for folder in sorted((run / "checkpoints").iterdir())
    ]


def _over_seeds(out: Path, num_seeds: int) -> str:
    """A line per kind of checkpoint: what the studies of the seeds found."""
    compared = [
        json.loads((out / f"seed-{seed}" / "compare" / "compare.json").read_text())
        for seed in range(num_seeds)
    ]
    points = json.loads((out / "correlate" / "correlate.json").read_text())["points"]
    accuracy = {point["name"]: point["accuracy"] for point in points}
    lines = [["checkpoint", "rise of log ratio", "rise of share", "accuracy", "verdicts"]]
    for run in STARTS:
        shifts = [next(s for s in one["shifts"] if s["name"] == run.key) for one in compared]
        rises = [
            [shift["overall"][quantity]["value"] for shift in shifts]
            for quantity in ("log_ratio", "share")
        ]
        last = [
            accuracy[f"{run.key}#{seed}-{_checkpoints(out / f'seed-{seed}' / run.key)[-1][0]}"]
            for seed in range(num_seeds)
        ]
        verdicts = ", ".join(shift["verdict"] for shift in shifts)
        lines.append([run.key, *map(mean_and_deviation, (*rises, last)), verdicts])
    return f"{markdown(lines)}\n\nMean and deviation over seeds; verdicts in their order.\n"


def _train_all(out: Path, num_seeds: int, num_ranks: int) -> None:
    """Makes the data, the same bytes whenever it is written again, and trains what is not there."""
    say("making images of handwritten digits, questions, and an untrained Qwen2.5-VL")
    save_base(out / "init", 0)
    write_curriculum(out / "data" / "test", TEST, 0, split="test")
    data = write_curriculum(out / "data" / "base", CURRICULUM, 0)
    _train_once(BASE, out, data, 0, num_ranks, BASE_EVERY)
    for seed in range(num_seeds):
        folder = out / f"seed-{seed}"
        tune = write_curriculum(folder / "data" / "tune", TUNE, seed + 1)
        told = write_text_rows(tune, folder / "data" / "text-only" / "train.jsonl")
        if not (folder / "base").exists():
            (folder / "base").symlink_to("../base")
        for run in STARTS:
            say(f"seed {seed}: {run.title}")
            data = told if run.key == "text-only" else tune
            _train_once(run, folder, data, seed, num_ranks, START_EVERY)


def _train_once(run: TrainingRun, out: Path, data: Path, seed: int, ranks: int, every: int) -> None:
    finished = out / run.key / "seconds.json"
    if finished.is_file():
        return
    shutil.rmtree(out / run.key, ignore_errors=True)
    kept = replace(run, settings=(f"train.save_every={every}", "train.keep_last=100"))
    finished.write_text(json.dumps(train(kept, out, data, seed, ranks)))


def _study(command: list[str], folder: Path) -> str:
    """Runs one study; returns what it prints."""
    whole = [sys.executable, "-m", "avar_fast.studies", *command, "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(whole, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {command[0]} failed; its message is above.")
    return done.stdout


if __name__ == "__main__":
    main()
