"""Benchmarks of a model with its Visual Attention Score, comparisons and sweeps.

python -m avar_fast.evaluate MODEL --benchmarks mathvista,mmstar --out RESULT.json
python -m avar_fast.evaluate MODEL --data rows.jsonl --out RESULT.json
torchrun --nproc_per_node N -m avar_fast.evaluate MODEL ...
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from ..attention import attach
from ..loading import Loaded, load
from ..rewards import AnswerChecker
from .arguments import add_common, settings_of, tasks_of
from .journal import Journal
from .ranks import Ranks
from .result import project, read_result, weights_digest, write_json
from .run import identity, run
from .settings import Settings
from .table import report
from .tasks import Task

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar_fast.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    parser.add_argument("--out", type=Path, required=True, help="the result, one JSON")
    parser.add_argument("--visual-scale", type=float, default=1.0, help="of logits of image keys")
    parser.add_argument("--system-scale", type=float, default=1.0, help="of the system turn's")
    parser.add_argument("--visual-bias", type=float, default=0.0, help="added to the image's")
    parser.add_argument("--system-bias", type=float, default=0.0, help="added to the system turn's")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(given)
    ranks = Ranks()
    try:
        settings = settings_of(
            options,
            visual_scale=options.visual_scale,
            system_scale=options.system_scale,
            visual_bias=options.visual_bias,
            system_bias=options.system_bias,
        )
        with AnswerChecker(options.checker) as checker:
            tasks = tasks_of(options, settings, checker)
            return evaluate_to(options.out, options, settings, tasks, ranks)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is there.", file=sys.stderr)
        return INTERRUPTED
    finally:
        ranks.close()


def evaluate_to(
    out: Path, options: argparse.Namespace, settings: Settings, tasks: list[Task], ranks: Ranks
) -> int:
    """Runs to the result file; returns the exit code: 1 where questions could not be asked."""
    if out.exists():
        raise ValueError(f"--out {out} is there already. Name another, or remove it.")
    model = {
        "path": options.model,
        "weights": weights_digest(options.model),
        "dtype": options.dtype,
    }
    journal = Journal(out)
    problem = None
    if ranks.rank == 0:
        try:
            journal.claim(identity(model, settings, tasks))
        except (ValueError, OSError) as error:
            problem = str(error)
    problem = ranks.first_says(problem)
    if problem is not None:
        raise ValueError(problem)

    def loaded() -> Loaded:
        transformers_logging.disable_progress_bar()
        found = load(options.model, getattr(torch, options.dtype), ranks.device)
        attach(found.model, found.tokenizer)
        return found

    outcome = run(loaded, settings, tasks, journal, ranks, options.batch_size)
    if outcome is None:
        return 0
    head = {
        "project": project(),
        "model": model,
        "settings": settings.as_dict(),
        "batch_size": options.batch_size,
        "ranks": ranks.size,
        "seconds": round(outcome.seconds, 1),
    }
    write_json(out, head, outcome.summaries, outcome.predictions)
    print(report(read_result(out)))
    for what in outcome.problems:
        print(f"warning: counts as wrong: {what}", file=sys.stderr)
    unread = sum(summary.num_unread for summary in outcome.summaries.values())
    if unread:
        print(
            f"{unread} questions could not be asked and count as wrong in {out}; once they can be,"
            f" remove it and the same command asks them alone ({journal.folder} has the others).",
            file=sys.stderr,
        )
        return 1
    journal.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
