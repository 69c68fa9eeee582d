"""The command line of the studies."""

import argparse
import math
from pathlib import Path
from typing import Any

from ..attention.tokens import ROLES
from ..bootstrap import Bootstrap
from ..evaluate import Settings
from ..evaluate.arguments import add_place_of_change, place_of_change
from ..evaluate.settings import INTERVENTIONS
from ..rewards import CHECKERS
from .compare import THRESHOLD
from .heads import MASKS
from .masses import MassSettings

USAGE = """Studies of the Visual Attention Score.

python -m avar_fast.studies score MODEL --data ROWS --out DIR
python -m avar_fast.studies compare BASE MODEL [MODEL ...] --data ROWS --out DIR
python -m avar_fast.studies correlate RESULT.json RESULT.json RESULT.json [...] --out DIR
python -m avar_fast.studies correlate MODEL MODEL MODEL [...] --data ROWS --out DIR
python -m avar_fast.studies heads MODEL --data ROWS --limit 32 --out DIR
python -m avar_fast.studies look MODEL [MODEL] --data ROWS --out DIR

A model is a folder or hub name that from_pretrained loads, a result the JSON of an evaluation;
NAME=PATH gives either a name of its own. A study writes its JSON and a picture or a page into
DIR."""


def named(text: str) -> tuple[str, str]:
    """NAME=PATH, or a path that is its own name -> (name, path)."""
    name, equals, path = text.partition("=")
    if equals and not Path(text).exists():
        if not name or not path:
            raise argparse.ArgumentTypeError(f"must be PATH or NAME=PATH; got {text!r}.")
        return name, path
    return text, text


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}.")
    return int(text)


def share(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1; got {text!r}. Use e.g. 0.95.")
    return value


def finite(text: str) -> float:
    """A number that is neither infinite nor NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number; got {text!r}.")
    return value


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative; got {text!r}.")
    return value


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0; got {text!r}.")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """One sub-command per study."""
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.studies",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    score = commands.add_parser(
        "score",
        help="overall, per layer, per head, per token position",
        **_example("score MODEL --data rows.jsonl --out out/score"),
    )
    score.add_argument("model", type=named)
    _add_mass_settings(score, data_needed=True)
    _add_intervention(score)
    _add_bootstrap(score)

    compare = commands.add_parser(
        "compare",
        help="where attention moved between checkpoints",
        **_example("compare base=MODEL agto=CHECKPOINT --data rows.jsonl --out out/compare"),
    )
    compare.add_argument("models", type=named, nargs="+", help="the base model first")
    compare.add_argument(
        "--threshold",
        type=finite,
        default=THRESHOLD,
        help="rise of the mean log ratio above which a checkpoint looks more (default log 1.15:"
        " 15 %% more visual per system mass, a convention: the paper gives none for this ratio)",
    )
    compare.add_argument(
        "--moves", type=count, default=8, help="heads to list, those that moved most (default 8)"
    )
    _add_mass_settings(compare, data_needed=True)
    _add_intervention(compare)
    _add_bootstrap(compare)

    correlate = commands.add_parser(
        "correlate",
        help="score against accuracy over checkpoints",
        **_example("correlate a.json b.json c.json --out out/correlate"),
    )
    correlate.add_argument("points", type=named, nargs="+", help="results, or models with --data")
    correlate.add_argument(
        "--max-new-tokens", type=count, default=2048, help="longest answer of a model, in tokens"
    )
    correlate.add_argument(
        "--checker",
        choices=CHECKERS,
        default="accuracy",
        help="rule that checks the models' answers",
    )
    _add_mass_settings(correlate, data_needed=False)
    correlate.add_argument("--confidence", type=share, default=0.95, help="default 0.95")

    heads = commands.add_parser(
        "heads",
        help="heads by visual mass and by effect of masking",
        **_example("heads MODEL --data rows.jsonl --limit 32 --out out/heads"),
    )
    heads.add_argument("model", type=named)
    heads.add_argument(
        "--masks",
        choices=MASKS,
        nargs="+",
        default=list(MASKS),
        help="visual: a head without its visual keys; output: without the head (default both); each"
        " costs one forward over the rows per head",
    )
    heads.add_argument("--show", type=count, default=16, help="heads in the table (default 16)")
    _add_mass_settings(heads, data_needed=True)
    _add_bootstrap(heads)

    look = commands.add_parser(
        "look",
        help="a page that shows, token by token, what answers look at in the images",
        **_example("look base=MODEL agto=CHECKPOINT --data rows.jsonl --limit 8 --out out/look"),
    )
    look.add_argument("models", type=named, nargs="+", help="one model, or two side by side")
    _add_reading(look, data_needed=True)
    look.set_defaults(limit=8)
    look.add_argument(
        "--max-new-tokens", type=count, default=512, help="longest answer in tokens (default 512)"
    )
    look.add_argument(
        "--layers",
        help="text layers to average over, by index, such as 0-7,12; default all with attention",
    )

    for command in (score, compare, correlate, heads, look):
        command.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser


def _example(arguments: str) -> dict[str, Any]:
    return {
        "epilog": f"example:\n  python -m avar_fast.studies {arguments}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def mass_settings(options: argparse.Namespace) -> MassSettings:
    """What the options say on queries; an empty --system-prompt adds no turn."""
    return MassSettings(
        queries=options.queries,
        system_prompt=options.system_prompt or None,
        eps=options.eps,
        num_positions=options.positions,
        batch_size=options.batch_size,
        intervention=_intervention(options),
    )


def _intervention(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of ``intervene``; empty for a study without these options, or with neutral ones.

    Raises:
        ValueError: a value is out of range, or options say how to intervene, but not to.
    """
    values = {name: getattr(options, name, None) for name in INTERVENTIONS}
    if None in values.values():
        return {}
    settings = Settings(**values, **place_of_change(options))
    settings.require_effect()
    return settings.intervention


def _add_intervention(parser: argparse.ArgumentParser) -> None:
    """Options of an intervention in every forward of the study."""
    default = Settings()
    for name, what in INTERVENTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=finite, default=getattr(default, name), help=what)
    add_place_of_change(parser)


def bootstrap_of(options: argparse.Namespace) -> Bootstrap:
    return Bootstrap(options.confidence, options.resamples, options.seed)


def _add_reading(parser: argparse.ArgumentParser, data_needed: bool) -> None:
    """Options of what is read, and how the model reads it."""
    default = MassSettings()
    parser.add_argument(
        "--data", required=data_needed, help="rows: .jsonl, .json, .parquet, folder or hub name"
    )
    parser.add_argument("--split", default="test", help="split to take if the data set has several")
    parser.add_argument("--limit", type=count, help="take only the first rows")
    parser.add_argument(
        "--system-prompt",
        default=default.system_prompt,
        help="system turn of rows without one; empty for none",
    )
    parser.add_argument("--min-pixels", type=count, help="smallest image after resizing")
    parser.add_argument("--max-pixels", type=count, help="largest image after resizing")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="default: bfloat16 on a GPU, float32 on a CPU",
    )


def _add_mass_settings(parser: argparse.ArgumentParser, data_needed: bool) -> None:
    default = MassSettings()
    _add_reading(parser, data_needed)
    parser.add_argument("--batch-size", type=count, default=default.batch_size)
    if not data_needed:
        return
    parser.add_argument(
        "--queries",
        choices=ROLES,
        default=default.queries,
        help="whose attention is read, of those that see the image (default user, as the paper)",
    )
    parser.add_argument(
        "--eps", type=not_negative, default=default.eps, help="added to masses (default 1e-6)"
    )
    parser.add_argument(
        "--positions",
        type=count,
        default=default.num_positions,
        help="parts of the queries of a row, for the score by token position (default 8)",
    )


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    default = Bootstrap()
    parser.add_argument("--confidence", type=share, default=default.confidence)
    parser.add_argument("--resamples", type=count, default=default.resamples)
    parser.add_argument("--seed", type=seed, default=default.seed, help="seed of the resampling")
