"""Write the lab's data and its untrained model.

python -m avar_fast.lab data  --out DIR --rows N --split train|test --seed S
                              [--style mixed|direct|chain] [--open] [--grid 2x2] [--smaller]
                              [--shortcut RHO] [--test-hint random|wrong|absent|training]
                              [--hint-place user|system] [--contrast 1] [--noise 0] [--plain]
python -m avar_fast.lab walks --out DIR --rows N --split train|test --seed S
                              [--side 4] [--steps 6] [--prior RHO] [--contrast 1] [--noise 0]
                              [--transcript SHARE] [--slip RATE] [--hint RHO] [--plain]
python -m avar_fast.lab model --out DIR --seed S [--tower sums|scarce|chains|plenty]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab"):
    from .digits import SPLITS
    from .walk_hints import HintedWalkConfig
    from .walk_styles import StyledWalkConfig
    from .world import HINT_PLACES, MAX_SIDE, STYLE_CHOICES, TEST_HINTS, WorldConfig, write_rows

TOWER_NAMES = ("sums", "scarce", "chains", "plenty")


def parse_grid(text: str) -> tuple[int, int]:
    """Turn "2x3" into (2, 3): rows, columns."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"must be ROWSxCOLS, each from 1 to {MAX_SIDE}; got {text!r}. Use e.g. 2x2."
        )
    return sides


def parse_probability(text: str) -> float:
    """Turn "0.9" into 0.9, refusing what is no probability."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(
            f"must be a probability from 0 to 1; got {text!r}. Use 0 for none, e.g. 0.9 for mostly."
        )
    return value


def parse_count(text: str) -> int:
    """Turn "2000" into 2000, refusing less than one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1; got {text!r}. Use e.g. 2000."
        )
    return int(text)


def parse_seed(text: str) -> int:
    """Turn "0" into 0, refusing what numpy takes for no seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 0; got {text!r}. Use e.g. 0."
        )
    return int(text)


EXAMPLES = """examples:
  python -m avar_fast.lab data --out runs/data --rows 1000 --split train --seed 0
  python -m avar_fast.lab walks --out runs/walks --rows 1000 --split train --seed 0 --prior 0.97
  python -m avar_fast.lab model --out runs/init --seed 0"""


def build_parser() -> argparse.ArgumentParser:
    """The command line: two sub-commands for data, one for the model."""
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.lab",
        description="Write the lab's data (JSONL and images) or its untrained model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{data,walks,model}")

    data = commands.add_parser("data", help="sums: write SPLIT.jsonl and images/ into a folder")
    walks = commands.add_parser("walks", help="walks: write SPLIT.jsonl and images/ into a folder")
    for rows in (data, walks):
        rows.add_argument("--out", type=Path, required=True, metavar="DIR")
        rows.add_argument("--rows", type=parse_count, required=True, metavar="N", help="how many")
        rows.add_argument("--split", choices=SPLITS, required=True)
        rows.add_argument("--seed", type=parse_seed, required=True, metavar="S")
        rows.add_argument(
            "--plain", action="store_true", help="do not vary size, slant, angle, place in training"
        )
        rows.add_argument("--contrast", type=float, default=1.0, help="of the image, default 1")
        rows.add_argument("--noise", type=float, default=0.0, help="of the image, default 0")
    data.add_argument("--style", choices=STYLE_CHOICES, default="mixed")
    data.add_argument("--open", action="store_true", help="do not name the style in the question")
    data.add_argument(
        "--grid", type=parse_grid, default=(2, 2), metavar="ROWSxCOLS", help="default 2x2"
    )
    data.add_argument(
        "--smaller", action="store_true", help="draw each side from 1 up to that of --grid"
    )
    data.add_argument(
        "--shortcut",
        type=parse_probability,
        default=0.0,
        metavar="RHO",
        help="probability that a training hint is right (default 0: no hints)",
    )
    data.add_argument(
        "--test-hint",
        choices=TEST_HINTS,
        default="random",
        help="with --shortcut, what test questions carry (default random)",
    )
    data.add_argument(
        "--hint-place", choices=HINT_PLACES, default="user", help="turn of the hint (default user)"
    )

    walks.add_argument("--side", type=int, default=4, help="digits in a row, default 4")
    walks.add_argument("--steps", type=int, default=6, help="cells a walk visits, default 6")
    walks.add_argument(
        "--prior",
        type=parse_probability,
        default=0.0,
        metavar="RHO",
        help="probability that a digit follows the rule (default 0: uniform digits)",
    )
    walks.add_argument(
        "--transcript",
        type=parse_probability,
        default=0.0,
        metavar="SHARE",
        help="of the rows whose response writes down the board before it walks (default 0)",
    )
    walks.add_argument(
        "--slip",
        type=parse_probability,
        default=0.0,
        metavar="RATE",
        help="probability that a transcript has a wrong digit (default 0)",
    )

    walks.add_argument(
        "--hint",
        type=parse_probability,
        metavar="RHO",
        help="put a hint into the system turn; probability that it is right (default: no hints)",
    )

    model = commands.add_parser("model", help="write an untrained model with its tokenizer")
    model.add_argument("--out", type=Path, required=True, metavar="DIR")
    model.add_argument("--seed", type=parse_seed, required=True, metavar="S")
    model.add_argument(
        "--tower",
        choices=TOWER_NAMES,
        default="sums",
        help="size and vocabulary: of the sums (default), or for walks with few or many heads",
    )
    return parser


@needs("avar_fast.lab")
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.out.exists() and not args.out.is_dir():
        parser.error(
            f"argument --out: must be a folder; got the file {args.out}. Name another folder."
        )
    if args.command == "walks" and args.slip and not args.transcript:
        parser.error(
            f"argument --slip must come with --transcript; got --slip {args.slip:g} alone. Add"
            " e.g. --transcript 0.5."
        )
    if args.command == "walks" and args.hint is not None and args.transcript:
        parser.error(
            "argument --hint must come without --transcript, as a hint is a walk and no transcript;"
            " got both. Leave one out."
        )
    if args.command in ("data", "walks"):
        try:
            config = _world(args)
        except ValueError as error:
            parser.error(f"argument --{error}")
        path = write_rows(args.out, config, args.split, args.rows, args.seed)
        print(f"wrote {args.rows} rows to {path}")
    else:
        # Only here: writing data needs neither torch nor transformers.
        from .model import save_base

        print(f"wrote the untrained model to {save_base(args.out, args.seed, args.tower)}")
    return 0


def _world(args: argparse.Namespace) -> WorldConfig | StyledWalkConfig | HintedWalkConfig:
    """The kind of rows that the options ask for."""
    image = {"contrast": args.contrast, "noise": args.noise, "vary": not args.plain}
    if args.command == "walks":
        walk = {"side": args.side, "steps": args.steps, "prior": args.prior, **image}
        if args.hint is not None:
            return HintedWalkConfig(right=args.hint, **walk)
        return StyledWalkConfig(transcript=args.transcript, slip=args.slip, **walk)
    rows, cols = args.grid
    return WorldConfig(
        rows=rows,
        cols=cols,
        smaller=args.smaller,
        style=args.style,
        open=args.open,
        shortcut=args.shortcut,
        test_hint=args.test_hint,
        hint_place=args.hint_place,
        **image,
    )


if __name__ == "__main__":
    sys.exit(main())
