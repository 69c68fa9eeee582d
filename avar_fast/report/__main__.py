"""``python -m avar_fast.report``: one HTML page from the folders of training runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..extras import needs

with needs("avar_fast.report"):
    from .document import require_page
    from .run_folder import RunFolder, read_run
    from .run_page import write_runs

EXAMPLES = """examples:
  python -m avar_fast.report runs/demo/agto --out agto.html
  python -m avar_fast.report runs/demo/sft with-agto=runs/demo/agto --out both.html"""


@needs("avar_fast.report")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.report",
        description="One HTML page of training runs: curves, VAS, rewards, completions, throughput,"
        " recipes and how they differ. The page loads nothing and runs no script.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run (its train.output_dir), or NAME=FOLDER to name it",
    )
    parser.add_argument("--out", type=Path, required=True, help="the page, PAGE.html")
    options = parser.parse_args(arguments)
    try:
        require_page(options.out)
        runs = _read(options.runs)
        for note in (note for run in runs for note in run.notes):
            print(f"note: {note}", file=sys.stderr)
        write_runs(options.out, runs)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(options.out)


def _read(texts: Sequence[str]) -> list[RunFolder]:
    """Reads the runs, once their names are known to differ."""
    paths: dict[str, Path] = {}
    for name, path in map(_named, texts):
        if name in paths:
            raise ValueError(
                f"RUN must have a name of its own; {paths[name]} and {path} are both {name!r}."
                " Write NAME=FOLDER to name one."
            )
        paths[name] = path
    return [read_run(name, path) for name, path in paths.items()]


def _named(text: str) -> tuple[str, Path]:
    """NAME=FOLDER, or a folder that is called by its own name."""
    name, equals, folder = text.partition("=")
    if not equals or Path(text).exists():
        return Path(text).resolve().name or text, Path(text)
    if not name or not folder:
        raise ValueError(f"RUN must be FOLDER or NAME=FOLDER; got {text!r}.")
    return name, Path(folder)


if __name__ == "__main__":
    main()
