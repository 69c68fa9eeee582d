"""The miniature AVAR study: ``python -m avar_fast.lab.demo --out runs/demo``.

The demo draws walks over boards of digits, and trains a base model that reads each digit before it
goes on. Cold starts then teach it rows in which the next digit mostly follows a rule: without a
cure, with AGTO, with AGTO's image term alone, and with a placebo. One cold start has no such rows.
GRPO goes on from the AGTO checkpoint, with and without VARS. The demo evaluates each model on walks
without the rule over held-out handwriting. It prints a table and writes a report and demo.json.
Every training run is ``python -m avar_fast.train`` on a recipe in configs/.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..extras import needs

with needs("avar_fast.lab.demo"):
    from transformers.utils import logging as transformers_logging

    from ..attention import attach
    from ..data import load_rows
    from ..evaluate import Settings, evaluate_rows, write_json
    from ..loading import load
    from ..report import ReportEntry, write_report
    from ..tables import markdown
    from .curriculum import write_curriculum
    from .model import save_base
    from .runs import NUM_RANKS, checkpoint, make_folder, say, train
    from .steps import StepScores, score_steps
    from .tokenizer import DEFAULT_SYSTEM
    from .walk_runs import (
        AGTO,
        BASE,
        COLD_STARTS,
        CONTRAST,
        DATA,
        GRPO,
        MAX_NEW_TOKENS,
        NOISE,
        ORDER,
        PRIOR,
        TEST,
        WalkRun,
    )
    from .walk_story import Step, story, walk_steps

RESULTS = "demo.json"  # a folder that holds it was made by the demo and may be made anew
NUM_WALKS = 3  # that the report tells
TOLD = ("plain", "agto", "ceiling")  # as these models read them
BATCH_SIZE = 100


@dataclass(frozen=True)
class Measured:
    """A trained model's scores on the test walks."""

    steps: StepScores
    """With the true steps given."""
    whole_chains: float
    """Share of walks that the model writes without an error, greedily."""
    entry: ReportEntry
    walks: list[list[Step]]
    """The steps of the walks that the report tells."""


@needs("avar_fast.lab.demo")
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.lab.demo",
        description=__doc__,
        epilog="example:\n  python -m avar_fast.lab.demo --out runs/demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0, help="of data, model and training")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    out, seed = options.out.resolve(), options.seed
    make_folder(out, RESULTS)
    # Processes that never ran torch's threads: forked ones of another could hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(NUM_RANKS, mp_context=context) as pool:
        _make_data(pool, out, seed)
        say("[1/8] base model")
        seconds = train(BASE, out, _data_of(BASE, out), seed)
        # One process a run from here on: runs side by side need no communication.
        futures = {"base": pool.submit(_measure, BASE, out, seconds)}
        futures |= {run.key: pool.submit(_train_and_measure, run, out, seed) for run in COLD_STARTS}
        futures[AGTO.key].result()
        futures |= {run.key: pool.submit(_train_and_measure, run, out, seed) for run in GRPO}
        measured = _results(futures)
    minutes = (time.perf_counter() - started) / 60
    intro = (
        f"Seed {seed}, {TEST[0].count} walks without the rule on held-out handwriting;"
        f" {os.cpu_count()} CPU cores, {minutes:.1f} minutes in all."
    )
    lines = table_rows([measured[key] for key in ORDER])
    table = markdown(lines)
    (out / "table.md").write_text(table + "\n")
    world = {"seed": seed, "prior": PRIOR, "contrast": CONTRAST, "noise": NOISE, "minutes": minutes}
    models = {key: as_dict(measured[key]) for key in ORDER}
    (out / RESULTS).write_text(json.dumps({"world": world, "models": models}, indent=1))
    entries = [measured[key].entry for key in ORDER]
    write_report(
        out / "report.html",
        "The miniature AVAR study",
        intro,
        entries,
        lines,
        _story(out, measured),
    )
    print(f"\n{table}\n\n{intro}\nReport: {out / 'report.html'}, numbers: {out / RESULTS}")


def _make_data(pool: ProcessPoolExecutor, out: Path, seed: int) -> None:
    say("drawing boards of handwritten digits, and making an untrained Qwen2.5-VL")
    drawn = [
        pool.submit(write_curriculum, out / "data" / name, phases, seed + number)
        for number, (name, phases) in enumerate(DATA.items())
    ]
    test = pool.submit(write_curriculum, out / "data" / "test", TEST, seed, split="test")
    save_base(out / "init", seed, tower="scarce")
    for future in (*drawn, test):
        future.result()


def _data_of(run: WalkRun, out: Path) -> Path:
    return out / "data" / run.data / "train.jsonl"


def _results(futures: dict[str, Future[Measured]]) -> dict[str, Measured]:
    """Waits for all models and says what came out, in the order in which they were begun."""
    measured = {}
    for number, (key, future) in enumerate(futures.items(), start=1):
        measured[key] = result = future.result()
        say(
            f"[{number}/{len(futures)}] {result.entry.name}: late steps"
            f" {result.steps.late_accuracy:.3f}, by the rule {result.steps.late_rule:.3f}"
            f" ({result.entry.train_seconds:.0f} s)"
        )
    return measured


def _train_and_measure(run: WalkRun, out: Path, seed: int) -> Measured:
    """What runs side by side writes its messages to files, or their bars would overwrite each
    other."""
    messages = out / f"{run.key}.log"
    with messages.open("a") as file, contextlib.redirect_stderr(file):
        seconds = train(run, out, _data_of(run, out), seed, num_ranks=1, messages=messages)
        return _measure(run, out, seconds)


def _measure(run: WalkRun, out: Path, train_seconds: float) -> Measured:
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    started = time.perf_counter()
    loaded = load(str(checkpoint(out, run.key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    rows = load_rows(str(out / "data" / "test" / "test.jsonl"))
    steps = score_steps(loaded, rows, BATCH_SIZE)
    settings = Settings(
        system_prompt=DEFAULT_SYSTEM, max_new_tokens=MAX_NEW_TOKENS, checker="exact"
    )
    result, predictions = evaluate_rows(loaded, rows, settings, BATCH_SIZE, run.title)
    chains = [f"<think>{row.columns['reasoning']}</think>" for row in rows]
    whole = statistics.mean(
        chain in prediction.completion
        for chain, prediction in zip(chains, predictions, strict=True)
    )
    seconds = time.perf_counter() - started
    write_json(
        out / run.key / "evaluation.json",
        {"model": {"path": run.title}, "settings": settings.as_dict()},
        {"rows": result},
        predictions,
    )
    walks = [walk_steps(loaded, rows[i]) for i in range(NUM_WALKS)]
    log = [json.loads(line) for line in (out / run.key / "log.jsonl").read_text().splitlines()]
    entry = ReportEntry(
        run.title,
        result.score,
        {"late steps": steps.late_accuracy, "first step": steps.first_accuracy},
        result.vas,
        result.vas_layers,
        result.vas_table,
        seconds,
        train_seconds,
        log,
    )
    return Measured(steps, whole, entry, walks)


def _story(out: Path, measured: dict[str, Measured]) -> str:
    rows = load_rows(str(out / "data" / "test" / "test.jsonl"))
    told = {measured[key].entry.name: measured[key].walks for key in TOLD}
    return story([rows[i] for i in range(NUM_WALKS)], told, PRIOR)


def table_rows(measured: list[Measured]) -> list[list[str]]:
    """Header and one line per model, as text."""
    header = ["model", "late steps", "first step", "by the rule", "whole chains", "visual mass"]
    header += ["VAS ratio", "VAS log ratio", "VAS share", "train s", "eval s"]
    lines = [header]
    for model in measured:
        steps, entry = model.steps, model.entry
        shares = (steps.late_accuracy, steps.first_accuracy, steps.late_rule)
        lines.append(
            [
                entry.name,
                *(f"{share:.3f}" for share in (*shares, model.whole_chains, steps.visual_mass)),
                f"{entry.vas['ratio']:.4g}",
                f"{entry.vas['log_ratio']:.2f}",
                f"{entry.vas['share']:.3f}",
                f"{entry.train_seconds:.0f}",
                f"{entry.eval_seconds:.0f}",
            ]
        )
    return lines


def as_dict(model: Measured) -> dict[str, Any]:
    """A model's scores for JSON: those of the table, and those step by step."""
    return {
        "title": model.entry.name,
        "late_accuracy": model.steps.late_accuracy,
        "first_accuracy": model.steps.first_accuracy,
        "late_rule": model.steps.late_rule,
        "whole_chains": model.whole_chains,
        "answers": model.entry.accuracy,
        "visual_mass": model.steps.visual_mass,
        "vas": model.entry.vas,
        "by_step": asdict(model.steps),
        "train_seconds": model.entry.train_seconds,
        "eval_seconds": model.entry.eval_seconds,
    }


if __name__ == "__main__":
    main()
