"""The method in miniature: ``python -m avar_fast.lab.demo --out runs/demo``.

The demo draws walks over boards of handwritten digits, and trains a base model that reads each
digit before it goes on. Then come cold starts. In their rows the system turn holds a hint, the
finished walk, which is mostly right. One has no cure, others have AGTO, one of its terms, a
placebo, or a lower learning rate; one has no hints. GRPO goes on from the AGTO checkpoint, with and
without VARS. Each model is tested on held-out handwriting, with hints that are wrong. The demo
prints a table and writes report.html and demo.json. Every training run is ``python -m
avar_fast.train`` on a recipe in configs/.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..extras import needs

with needs("avar_fast.lab.demo"):
    from transformers.utils import logging as transformers_logging

    from ..report import ReportEntry, write_report
    from ..tables import markdown
    from .demo_parts import (
        NUM_TOLD,
        Models,
        load_attached,
        logging_responses,
        make_data,
        make_test,
        measure,
        read_models,
        score_walks,
        train_and_measure,
        training_data,
        walks_of,
    )
    from .demo_runs import (
        ABSENT,
        BASE,
        CEILING,
        CLEAN,
        COLD_STARTS,
        CURED,
        DATA,
        DRAWS,
        GRPO,
        MORE,
        NUM_TEST,
        ORDER,
        PLAIN,
        READS,
        RIGHT,
        RIGHT_HINTS,
        STRETCHES,
        TOWER,
        WORLDS,
        WRONG,
    )
    from .model import save_base
    from .processes import make_all
    from .runs import NUM_RANKS, make_folder, say, train
    from .study_folder import read_lines
    from .walk_runs import WalkRun
    from .walk_story import Step, story

RESULTS = "demo.json"  # a folder that holds it was made by the demo and may be made anew
TOLD = (PLAIN.key, CURED.key, CEILING.key)  # models of the page's walks
PRELOADED = ("avar_fast.lab.demo_parts",)
READING = """
<h2>What came out</h2>
<p>All cold starts have hints in their rows, but for the <b>ceiling</b>. <b>plain</b>: the
language-model loss alone. <b>AGTO</b>: where the response is written, more attention on image keys
(<b>enhance only</b>) and less on keys of the system turn (<b>suppress only</b>). <b>placebo</b>:
the enhancing term on text keys. <b>plain, lr / 4</b>: the control for AGTO's slower learning. GRPO
goes on from AGTO.</p>
<p>The tests have wrong hints, but for two columns. Shares of right digits in the <b>later
steps</b> and the <b>first step</b>, with the true steps before given; of later digits that
<b>follow the hint</b> where it differs from the image; of <b>whole walks</b> written without an
error, greedily; of later steps with <b>no hint</b> and with the <b>right hint</b>. Attention where
digits are predicted: <b>visual</b> and <b>system mass</b>. Then the visual attention score in three
forms.</p>
"""


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
    out = options.out.resolve()
    make_folder(out, RESULTS)
    run_all(out, options.seed)
    models = read_models(out, ORDER)
    minutes = (time.perf_counter() - started) / 60
    intro = (
        f"Seed {options.seed}, {NUM_TEST} walks on held-out handwriting; {os.cpu_count()} CPU"
        f" cores, {minutes:.1f} minutes in all."
    )
    (out / RESULTS).write_text(
        json.dumps({"seed": options.seed, "minutes": minutes, "models": models}, indent=1)
    )
    table = table_rows(models)
    (out / "table.md").write_text(markdown(table) + "\n")
    write_report(
        out / "report.html",
        "Visual attention in miniature",
        intro,
        _story(out, models) + READING,
        table,
        [_entry(out, key, models[key]) for key in ORDER],
    )
    print(f"\n{markdown(table)}\n\n{intro}\nReport: {out / 'report.html'}, {out / RESULTS}")


def run_all(
    out: Path, seed: int, jobs: int = NUM_RANKS, cold_starts: Sequence[WalkRun] = COLD_STARTS
) -> None:
    """Draws the data, and trains and measures all models, ``jobs`` at a time."""
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    say("drawing boards of handwritten digits")
    drawing = [partial(make_data, out, name, seed) for name in DATA]
    make_all("data", [*drawing, *(partial(make_test, out, test) for test in WORLDS)], jobs)
    measure(out, BASE.key, train_base(out, seed))
    for title, runs in (("cold starts", cold_starts), ("GRPO", GRPO)):
        tasks = [partial(train_and_measure, out, run.key, seed) for run in runs]
        make_all(title, tasks, jobs, PRELOADED)


def train_base(out: Path, seed: int) -> float:
    """Trains a base model until it reads; returns the seconds.

    Exits the program where none of the draws of its weights reads after its last stretch.
    """
    data, seconds, accuracy = training_data(out, BASE.key), 0.0, 0.0
    for draw in range(DRAWS):
        save_base(out / "init", seed + 1_000 * draw, TOWER)
        before = BASE.start
        for stretch in range(STRETCHES):
            run = replace(MORE if stretch else BASE, key=f"base-{draw}-{stretch}", start=before)
            say(run.title)
            seconds += train(logging_responses(run), out, data, seed)
            accuracy = score_walks(load_attached(out, run.key), walks_of(out, CLEAN))["late"]
            say(f"of clean walks it reads {accuracy:.3f} of the later steps")
            if accuracy >= READS:
                (out / BASE.key).symlink_to(run.key)
                return seconds
            before = run.key
    sys.exit(
        f"error: the base model must be right at {READS:.0%} of the later steps of clean walks; it"
        f" is at {accuracy:.0%}, the last of {DRAWS} draws of its weights. Take another --seed."
    )


def table_rows(models: Models) -> list[list[str]]:
    """Header and one line per model, as text. With wrong hints, where nothing else is said."""
    header = ["model", "later steps", "first step", "follows hint", "whole walks", "no hint"]
    header += ["right hint", "visual mass", "system mass", "VAS ratio", "log ratio", "share"]
    lines = [[*header, "train s"]]
    for key in ORDER:
        model = models[key]
        wrong = model[WRONG]
        shares = (
            *(wrong["late"], wrong["first"], wrong["follows"], model["whole_walks"]),
            *(model[ABSENT]["late"], model[RIGHT_HINTS]["late"]),
            *(wrong["masses"]["visual"], wrong["masses"]["system"]),
        )
        lines.append(
            [
                model["title"],
                *(f"{share:.3f}" for share in shares),
                f"{model['vas']['ratio']:.4g}",
                f"{model['vas']['log_ratio']:.2f}",
                f"{model['vas']['share']:.3f}",
                f"{model['train_seconds']:.0f}",
            ]
        )
    return lines


def _entry(out: Path, key: str, model: dict[str, Any]) -> ReportEntry:
    log = read_lines(out / key / "log.jsonl")
    return ReportEntry(model["title"], model["vas_layers"], model["vas_table"], log)


def _story(out: Path, models: Models) -> str:
    rows = walks_of(out, WRONG)
    steps = {
        models[key]["title"]: [[Step(**step) for step in walk] for walk in models[key]["told"]]
        for key in TOLD
    }
    return story([rows[i] for i in range(NUM_TOLD)], steps, RIGHT)


if __name__ == "__main__":
    main()
