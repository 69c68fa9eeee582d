"""The command line that the resumable studies share."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def study_parser(
    name: str, description: str | None, page: str, seeds: int
) -> argparse.ArgumentParser:
    """Options of a study: its folder, seeds, jobs and page.

    Args:
        name: of its module in ``avar_fast.lab``.
        description: of the study.
        page: name of the file that it writes.
        seeds: their number, by default.
    """
    folder = f"runs/{name.replace('_', '-')}"
    parser = argparse.ArgumentParser(
        prog=f"python -m avar_fast.lab.{name}",
        description=description,
        epilog=f"example:\n  python -m avar_fast.lab.{name} --out {folder} --docs docs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path(folder))
    parser.add_argument("--seeds", type=int, default=seeds, help="how many, from 0 on")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--docs", type=Path, help=f"folder for {page} and its img/")
    parser.add_argument(
        "--page", action="store_true", help="run nothing, write the page of what is finished"
    )
    return parser


def parse_study(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Reads the options. Exits the program where a count is below one, or a page is asked of a
    folder that is not there."""
    options = parser.parse_args(arguments)
    for name in ("seeds", "jobs"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} must be at least 1; got {number}.")
    options.out = options.out.resolve()
    if options.page and not options.out.is_dir():
        parser.error(
            f"--page needs the folder of a study; {options.out} is none. Check --out, or run the"
            " study without --page."
        )
    return options


def need_runs(results: dict[str, dict]) -> None:
    """Exits the program where an arm has no finished run, as a page would lack its row.

    Args:
        results: {arm: its finished runs}.
    """
    if lacking := [key for key, runs in results.items() if not runs]:
        sys.exit(
            "error: every arm must have a finished run for a page;"
            f" {', '.join(lacking)} has none. Run the study without --page."
        )


def command_line(parser: argparse.ArgumentParser) -> str:
    """The command of this process, for the page."""
    return " ".join([parser.prog, *sys.argv[1:]])
