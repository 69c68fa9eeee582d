"""Command-line options that a run and a sweep share."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..attention import INTERVENTION_FORMS
from ..attention.tokens import ROLES
from ..config.recipe_file import read_section
from ..config.rollout import RolloutConfig
from ..data import load_rows
from ..missing import AS_OPTIONS
from ..rewards import CHECKERS, AnswerChecker
from .benchmarks import BENCHMARKS, PARTS
from .benchmarks.rows import OwnRows
from .judge.arguments import add_judge
from .prompts import STYLES
from .settings import ENGINES, Settings
from .tasks import BenchmarkTask, EvalTask, RowsTask

ROWS, ALL = "rows", "all"
DIGITS = 4  # of a layer's number, so that a range fits in memory
SHOWN = 60  # characters of a wrong value in its error


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a run, except those that a sweep varies."""
    default = Settings()
    parser.add_argument("model", help="folder or hub name that from_pretrained loads")
    parser.add_argument(
        "--benchmarks",
        default="",
        help=f"by comma: {', '.join(PARTS)}, or {ALL} for these seven; {ROWS} (needs --data)",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="ROWS | NAME=FOLDER",
        help="rows of your own (.jsonl, .json, .parquet, folder, hub name), or a local copy of a"
        " benchmark's hub repository; may be given several times",
    )
    parser.add_argument("--split", default="test", help="of rows from a data set that has several")
    parser.add_argument("--limit", type=int, help="only the first questions of each benchmark")
    parser.add_argument("--style", choices=STYLES, default=default.style, help="prompt style")
    parser.add_argument("--system-prompt", default=default.system_prompt, help='"" for none')
    parser.add_argument("--max-new-tokens", type=int, default=default.max_new_tokens)
    parser.add_argument("--min-pixels", type=int, help="smallest image after resizing")
    parser.add_argument("--max-pixels", type=int, help="largest image after resizing")
    parser.add_argument(
        "--checker",
        choices=CHECKERS,
        default=default.checker,
        help="rule that checks answers to your own rows",
    )
    parser.add_argument("--no-vas", action="store_true", help="do not record attention")
    parser.add_argument("--batch-size", type=int, default=8, help="questions at once on a rank")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    add_place_of_change(parser)
    parser.add_argument("--engine", choices=ENGINES, default=default.engine, help="what generates")
    parser.add_argument(
        "--rollout",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of vLLM, as in a recipe's section rollout: gpu_memory=0.9, server_url=http://host:8000",
    )
    add_judge(parser)


def add_place_of_change(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where and how an intervention acts."""
    default = Settings()
    parser.add_argument(
        "--layers",
        help="text layers to intervene in, by index, such as 0-7,12; default all with attention",
    )
    parser.add_argument(
        "--form",
        choices=INTERVENTION_FORMS,
        default=default.form,
        help="what scales multiply: logits (default), attention weights that are then normalized,"
        " or weights that are not",
    )
    parser.add_argument(
        "--changed-queries",
        choices=ROLES,
        default=default.changed_queries,
        help="whose attention an intervention changes (default all)",
    )


def place_of_change(options: argparse.Namespace) -> dict[str, Any]:
    """What the options of ``add_place_of_change`` say, as fields of ``Settings``."""
    return {
        "layers": None if options.layers is None else layer_numbers(options.layers),
        "form": options.form,
        "changed_queries": options.changed_queries,
    }


def settings_of(options: argparse.Namespace, **intervention: Any) -> Settings:
    """Reads the settings from the options.

    Args:
        options: options of the command line.
        intervention: values of the intervention settings.

    Raises:
        ValueError: a setting is out of range.
    """
    return Settings(
        style=options.style,
        system_prompt=options.system_prompt or None,
        max_new_tokens=options.max_new_tokens,
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
        limit=options.limit,
        checker=options.checker,
        vas=not options.no_vas,
        engine=options.engine,
        **place_of_change(options),
        **intervention,
    )


def rollout_of(options: argparse.Namespace) -> RolloutConfig:
    """Reads the settings of the engine from the options.

    Raises:
        ValueError: a key is unknown, or a value is out of range.
    """
    assignments = [*options.rollout, f"engine={options.engine}"]
    return read_section(RolloutConfig, "rollout", assignments)


def numbers(text: str) -> tuple[float, ...]:
    """Parses numbers separated by commas: "1,1.15" -> (1.0, 1.15)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers by comma; got {text!r}.") from None


@dataclass(frozen=True)
class Chosen:
    """The chosen benchmarks and rows. Their data are not read yet."""

    names: list[str]
    """Names of benchmarks, and "rows"."""
    local: dict[str, str]
    """{benchmark or one of its tasks: folder with a copy}"""
    rows: str | None
    """Path of the user's own rows."""
    split: str
    """Split of the rows."""


def chosen_of(options: argparse.Namespace) -> Chosen:
    """Reads the choice of benchmarks and data from the options.

    Raises:
        ValueError: a benchmark is unknown, or data are given for a benchmark that is not chosen.
    """
    local, rows = _data(options.data)
    words = [word.strip() for word in options.benchmarks.split(",") if word.strip()]
    names = [name for word in words for name in (PARTS if word == ALL else (word,))]
    if rows and ROWS not in names:
        names.append(ROWS)
    if not names:
        raise ValueError(
            "nothing to evaluate on. Name --benchmarks, or rows of your own with --data."
        )
    known = [*PARTS, ROWS, ALL]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"--benchmarks must be among {', '.join(known)}; got {name}.{meant}")
    unused = [name for name in local if not any(name in (n, *PARTS.get(n, ())) for n in names)]
    if unused:
        raise ValueError(
            f"--data {unused[0]}=... is for a benchmark that --benchmarks does not name"
            f" ({', '.join(names)})."
        )
    if ROWS in names and rows is None:
        raise ValueError(f"--benchmarks {ROWS} needs --data with the rows.")
    return Chosen(list(dict.fromkeys(names)), local, rows, options.split)


@contextmanager
def open_tasks(chosen: Chosen, settings: Settings) -> Iterator[list[EvalTask]]:
    """Reads and checks the data of the chosen benchmarks. The tasks can be used inside the context.

    Raises:
        ValueError: data cannot be used.
        OSError: a file does not exist.
    """
    with AnswerChecker(settings.checker) as checker:
        yield _open_tasks(chosen, settings, checker)


def _open_tasks(chosen: Chosen, settings: Settings, checker: AnswerChecker) -> list[EvalTask]:
    tasks: list[EvalTask] = []
    for name in chosen.names:
        if name == ROWS and chosen.rows is not None:
            loaded = load_rows(chosen.rows, chosen.split, names=AS_OPTIONS)
            tasks.append(RowsTask(OwnRows(checker), loaded, chosen.rows, settings))
            continue
        for part in PARTS[name]:
            where = chosen.local.get(part, chosen.local.get(name))
            tasks.append(BenchmarkTask(BENCHMARKS[part], where, settings))
    return tasks


def layer_numbers(text: str) -> tuple[int, ...]:
    """Parses layer numbers and ranges: "0-2,5" -> (0, 1, 2, 5)."""
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        numbers = [int(n) for n in (first, last) if n.isdecimal() and len(n) <= DIGITS]
        if len(numbers) < 2 or numbers[0] > numbers[1]:
            raise ValueError(f"--layers must be like 0-7,12; got {text[:SHOWN]!r}.")
        layers += range(numbers[0], numbers[1] + 1)
    return tuple(sorted(set(layers)))


def _data(values: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Splits the values of --data into ({benchmark: folder}, path of rows)."""
    known = {*PARTS, *BENCHMARKS}
    local: dict[str, str] = {}
    rows: list[str] = []
    for value in values:
        name, sign, path = value.partition("=")
        if sign and name in known:
            local[name] = str(Path(path).expanduser())
        elif sign and not Path(value).exists():
            raise ValueError(
                f"--data must be rows or NAME=FOLDER with a name among {', '.join(sorted(known))};"
                f" got {value}."
            )
        else:
            rows.append(value)
    if len(rows) > 1:
        raise ValueError(f"--data takes one set of rows; got {', '.join(rows)}.")
    return local, rows[0] if rows else None
