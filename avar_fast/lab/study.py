"""The shortcut study: what AGTO and VARS do to a model that has learned a shortcut.

``python -m avar_fast.lab.study --out runs/study`` runs it.

Every training question carries a hint that is right with probability rho. The model can copy its
answer from the hint or read it off the image, at once or in a chain. All seeds start from one base
model that can read, as from a pretrained model. Each seed has its own digits, order and samples. A
seed trains a cold start on questions with hints, most of them answered at once, with and without
AGTO. From the AGTO checkpoint it then runs GRPO without VARS and with each form of VARS. Every
checkpoint answers held-out questions greedily: once with hints as in training, once with random
hints. The hints stand in the user turn, whose keys AGTO's suppressing term does not touch;
lab/hint_study.py compares both turns. Seeds run in parallel, one process with one thread each.
Finished parts are not run again.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from ..extras import needs

with needs("avar_fast.lab.study"):
    from transformers.utils import logging as transformers_logging

    from ..attention import attach
    from ..data import load_rows
    from ..evaluate import Settings, evaluate_rows
    from ..loading import load
    from .curriculum import Phase, write_curriculum
    from .model import save_base
    from .runs import (
        CHAIN,
        MAX_NEW_TOKENS,
        MIXED,
        ONE_DIGIT,
        TrainingRun,
        checkpoint,
        read_recipes,
        say,
        train,
    )
    from .study_folder import enter_folder, only_study, read_whole, write_whole
    from .study_report import write_study
    from .world import DEFAULT_SYSTEM, WorldConfig

MARKER = "shortcut-study.json"  # settings of the study that made the folder
RHO = 0.7
# The base model meets hints that are as good as random, in chains: it can read past them.
HINTED = WorldConfig(style="chain", open=True, shortcut=0.05)
SIGHT = (
    Phase((ONE_DIGIT,), pool=2_000, count=120 * 32),
    Phase((CHAIN,), pool=4_800, count=150 * 32),
    Phase((CHAIN, HINTED, HINTED, MIXED), pool=2_640, count=330 * 32),
)
AT_ONCE = WorldConfig(style="direct", open=True, shortcut=RHO)
IN_CHAINS = WorldConfig(style="chain", open=True, shortcut=RHO)
# Three answers in four are given at once, where the hint is the easier way to them.
HINTS = (Phase((AT_ONCE, AT_ONCE, AT_ONCE, IN_CHAINS), pool=1_600, count=6_400),)
TESTS = ("training", "random")  # the hints of the two tests
NUM_TEST = 500

SFT = ("train.micro_batch_size=32",)
AGTO = (*SFT, "agto.alpha=0.001", "agto.beta=0.001")
# At 40 steps GRPO alone answers 96 % of the questions with random hints (seed 0): nothing would be
# left for VARS to add.
GRPO = ("train.steps=15",)
BASE = TrainingRun("base", "base model", "lab-base.yaml", "init", (*SFT, "train.steps=600"))
RUNS = (
    TrainingRun("sft", "cold start with hints", "lab-sft.yaml", "base", SFT),
    TrainingRun("agto", "+ AGTO", "lab-sft-agto.yaml", "base", AGTO),
    TrainingRun("grpo", "+ AGTO + GRPO", "lab-grpo.yaml", "agto", GRPO),
    *(
        TrainingRun(
            form,
            f"+ AGTO + GRPO + VARS ({form})",
            "lab-grpo-vars.yaml",
            "agto",
            (*GRPO, f"grpo.visual_form={form}"),
        )
        for form in ("ratio", "log_ratio", "share")
    ),
)
BATCH_SIZE = 100


@needs("avar_fast.lab.study")
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.lab.study",
        description=__doc__,
        epilog="example:\n  python -m avar_fast.lab.study --out runs/study --docs docs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds at a time")
    parser.add_argument("--docs", type=Path, help="folder for study.md and its img/")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2, for a deviation; got {options.seeds}.")
    out = options.out.resolve()
    enter_folder(out, MARKER, settings())
    folders = [out / f"seed-{seed}" for seed in range(options.seeds)]
    # A process that never ran torch's threads: forked ones of another could hang.
    context = multiprocessing.get_context("spawn")
    with only_study(out, MARKER):
        _make_base(out / "base")
        with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
            results = list(pool.map(run_seed, range(options.seeds), folders))
    titles = {run.key: run.title for run in (BASE, *RUNS)}
    command = "python -m avar_fast.lab.study " + " ".join(sys.argv[1:])
    curves = {
        run.title: [_sampled_accuracy(folder / run.key) for folder in folders]
        for run in RUNS
        if "grpo" in run.recipe
    }
    page = options.docs or options.out
    print(write_study(page, titles, results, curves, RHO, NUM_TEST, command))


def settings() -> dict:
    """All that decides the results of a seed; studies with other settings share no folder."""
    return {
        "recipes": read_recipes({run.recipe for run in (BASE, *RUNS)}),
        "runs": [[run.key, run.recipe, run.start, *run.settings] for run in (BASE, *RUNS)],
        "sight": [asdict(phase) for phase in SIGHT],
        "hints": [asdict(phase) for phase in HINTS],
        "tests": [*TESTS, NUM_TEST],
    }


def _make_base(out: Path) -> None:
    """The base model of all seeds: ``out/latest``."""
    if (out / "latest").exists():
        return
    made = out.with_name("base-making")
    shutil.rmtree(made, ignore_errors=True)
    data = write_curriculum(made / "data", SIGHT, seed=0)
    save_base(made / "init", seed=0)
    train(BASE, made, data, seed=0, num_ranks=1)
    shutil.rmtree(out, ignore_errors=True)
    (made / "base").rename(out)
    shutil.rmtree(made)


def run_seed(seed: int, out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Trains and measures what is not there yet; for each run and test what it scores."""
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    if not (out / "base").exists():
        shutil.rmtree(out, ignore_errors=True)
        _make_data(seed, out)
        (out / "base").symlink_to("../base")
    results = {}
    for run in (BASE, *RUNS):
        scored = out / f"{run.key}.json"
        if not scored.exists():
            if run is not BASE:
                say(f"seed {seed}: {run.title}")
                shutil.rmtree(out / run.key, ignore_errors=True)
                train(run, out, out / "data" / "train.jsonl", seed, num_ranks=1)
            scores = {test: _measure(out, run.key, test) for test in TESTS}
            write_whole(scored, scores)
        results[run.key] = read_whole(scored)
    return results


def _sampled_accuracy(run: Path) -> list[float]:
    """Of each step's completions, as the run's log has it."""
    return [json.loads(line)["accuracy"] for line in (run / "log.jsonl").read_text().splitlines()]


def _make_data(seed: int, out: Path) -> None:
    write_curriculum(out / "data", HINTS, seed + 1_000)  # other digits than the base model's
    for test in TESTS:
        world = WorldConfig(open=True, shortcut=RHO, test_hint=test)
        phases = (Phase((world,), pool=NUM_TEST, count=NUM_TEST),)
        write_curriculum(out / f"test-{test}", phases, seed, split="test")


def _measure(out: Path, key: str, test: str) -> dict[str, float]:
    loaded = load(str(checkpoint(out, key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    rows = load_rows(str(out / f"test-{test}" / "test.jsonl"))
    settings = Settings(
        system_prompt=DEFAULT_SYSTEM, max_new_tokens=MAX_NEW_TOKENS, checker="exact"
    )
    result, predictions = evaluate_rows(loaded, rows, settings, BATCH_SIZE, f"{key}, hints {test}")
    reasoned = statistics.mean("<think>" in prediction.completion for prediction in predictions)
    return {"accuracy": result.score, "reasoned": reasoned, **result.vas}


if __name__ == "__main__":
    main()
