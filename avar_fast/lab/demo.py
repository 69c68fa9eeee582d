"""The miniature AVAR study: ``python -m avar_fast.lab.demo --out runs/demo``.

The demo makes the lab's data and model, trains a base model, cold-starts it with and without AGTO,
and runs GRPO with and without VARS from the AGTO checkpoint. It evaluates each model on held-out
digits, prints a table and writes a report. Every training run is ``torchrun -m avar_fast.train`` on
a recipe in configs/.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from ..extras import needs

with needs("avar_fast.lab.demo"):
    from transformers.utils import logging as transformers_logging

    from ..attention import attach
    from ..data import Rows, load_rows
    from ..evaluate import Settings, evaluate_rows, write_json
    from ..loading import load
    from ..report import ReportEntry, write_report
    from ..report.attention_maps import attention_map
    from ..report.page import text_table
    from .curriculum import write_curriculum
    from .model import save_base
    from .runs import (
        CURRICULUM,
        MAX_NEW_TOKENS,
        TEST,
        TUNE,
        TrainingRun,
        checkpoint,
        make_folder,
        say,
        train,
    )
    from .world import DEFAULT_SYSTEM

MARKER = "demo.json"  # a folder that holds it was made by the demo and may be made anew
NUM_PICTURES = 4
BATCH_SIZE = 25

RUNS = (
    TrainingRun("base", "base model", "lab-base.yaml", "init"),
    TrainingRun("sft", "cold start", "lab-sft.yaml", "base"),
    TrainingRun("agto", "cold start + AGTO", "lab-sft-agto.yaml", "base"),
    TrainingRun("grpo", "AGTO, then GRPO", "lab-grpo.yaml", "agto"),
    TrainingRun("vars", "AGTO, then GRPO + VARS", "lab-grpo-vars.yaml", "agto"),
)


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
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    started = time.perf_counter()
    out = options.out.resolve()
    make_folder(out, MARKER)
    say(
        "making images of handwritten digits, questions, and an untrained Qwen2.5-VL of 1.1 M"
        " parameters"
    )
    learn = write_curriculum(out / "data" / "base", CURRICULUM, options.seed)
    tune = write_curriculum(out / "data" / "tune", TUNE, options.seed + 1)
    test = write_curriculum(out / "data" / "test", TEST, options.seed, split="test")
    save_base(out / "init", options.seed)

    rows = load_rows(str(test))
    entries = []
    for number, run in enumerate(RUNS, start=1):
        say(f"[{number}/{len(RUNS)}] {run.title}")
        data = learn if run.key == "base" else tune
        seconds = train(run, out, data, options.seed)
        entries.append(_measure(run, out, rows, seconds))
    minutes = (time.perf_counter() - started) / 60
    intro = (
        f"Seed {options.seed}, {len(rows)} held-out questions on images of handwritten digits,"
        f" greedy generation; {os.cpu_count()} CPU cores, {minutes:.1f} minutes in all."
    )
    write_report(out / "report.html", "The miniature AVAR study", intro, entries)
    table = text_table(entries)
    (out / "table.md").write_text(table + "\n")
    print(f"\n{table}\n\n{intro}\nReport: {out / 'report.html'}")


def _measure(run: TrainingRun, out: Path, rows: Rows, train_seconds: float) -> ReportEntry:
    loaded = load(str(checkpoint(out, run.key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    settings = Settings(
        system_prompt=DEFAULT_SYSTEM, max_new_tokens=MAX_NEW_TOKENS, checker="exact"
    )
    started = time.perf_counter()
    result, predictions = evaluate_rows(loaded, rows, settings, BATCH_SIZE, "held-out digits")
    eval_seconds = time.perf_counter() - started
    write_json(
        out / run.key / "evaluation.json",
        {"model": {"path": run.title}, "settings": settings.as_dict()},
        {"rows": result},
        predictions,
    )
    maps = [
        attention_map(loaded, rows[i], DEFAULT_SYSTEM, MAX_NEW_TOKENS) for i in range(NUM_PICTURES)
    ]
    log = [json.loads(line) for line in (out / run.key / "log.jsonl").read_text().splitlines()]
    return ReportEntry(
        run.title,
        result.score,
        {style: result.scores[f"style={style}"] for style in ("chain", "direct")},
        result.vas,
        result.vas_layers,
        result.vas_table,
        eval_seconds,
        train_seconds,
        log,
        maps,
    )


if __name__ == "__main__":
    main()
