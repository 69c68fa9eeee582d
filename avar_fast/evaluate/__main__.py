"""``python -m avar_fast.evaluate``: benchmarks, comparisons, sweeps; --help lists them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..extras import needs

with needs("avar_fast.evaluate"):
    from ..bootstrap import Bootstrap
    from ..rollout import RolloutError
    from .arguments import add_common, chosen_of, numbers, open_tasks, rollout_of, settings_of
    from .command import Model, evaluate_to
    from .compare import compare, comparison_text
    from .judge.arguments import judge_of
    from .ranks import Ranks, local_device
    from .result import read_result
    from .settings import INTERVENTIONS
    from .sweep import sweep
    from .table import side_by_side

INTERRUPTED = 130
USAGE = """Benchmarks of a model with its Visual Attention Score, comparisons and sweeps.

python -m avar_fast.evaluate MODEL --benchmarks mathvista,mmstar --out RESULT.json
python -m avar_fast.evaluate MODEL --data rows.jsonl --out RESULT.json
torchrun --nproc_per_node N -m avar_fast.evaluate MODEL ...
python -m avar_fast.evaluate table A.json [B.json ...]
python -m avar_fast.evaluate compare A.json B.json
python -m avar_fast.evaluate sweep MODEL --visual-scale 1,1.15 --system-scale 1,0.6 ... --out DIR
python -m avar_fast.evaluate page RESULT.json --out PAGE.html"""


@needs("avar_fast.evaluate")
def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(given[0]) if given else None
    try:
        return _evaluate(given) if command is None else command(given[1:])
    except (ValueError, OSError, RolloutError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue.", file=sys.stderr)
        return INTERRUPTED


def _evaluate(arguments: Sequence[str]) -> int:
    parser = _parser("", USAGE, "runs/grpo/latest --benchmarks mathvista,mmstar --out r.json")
    add_common(parser)
    parser.add_argument("--out", type=Path, required=True, help="the result, one JSON")
    for name, what in INTERVENTIONS.items():
        neutral = 1.0 if name.endswith("scale") else 0.0
        parser.add_argument(_flag(name), type=float, default=neutral, help=what)
    options = parser.parse_args(arguments)
    settings = settings_of(options, **{name: getattr(options, name) for name in INTERVENTIONS})
    settings.require_effect()
    chosen = chosen_of(options)
    model = Model(options.model, options.dtype, local_device(), rollout_of(options))
    with Ranks() as ranks, open_tasks(chosen, settings) as tasks:
        judge = judge_of(options, tasks)
        return evaluate_to(options.out, model, settings, tasks, ranks, options.batch_size, judge)


def _sweep(arguments: Sequence[str]) -> int:
    parser = _parser(
        "sweep",
        "Accuracy and VAS over a grid of interventions.",
        "sweep MODEL --benchmarks mathvista --visual-scale 1,1.15 --out sweep/",
    )
    add_common(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and tables")
    for name, what in INTERVENTIONS.items():
        parser.add_argument(_flag(name), type=numbers, default=None, help=f"{what}, by comma")
    options = parser.parse_args(arguments)
    grid = {name: v for name in INTERVENTIONS if (v := getattr(options, name)) is not None}
    if not grid:
        flags = ", ".join(map(_flag, INTERVENTIONS))
        raise ValueError(f"a sweep needs values of at least one of {flags}.")
    with Ranks() as ranks:
        return sweep(options, grid, ranks)


def _compare(arguments: Sequence[str]) -> int:
    parser = _parser("compare", "Two results of the same questions.", "compare base.json agto.json")
    default = Bootstrap()
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--confidence", type=float, default=default.confidence)
    parser.add_argument("--resamples", type=int, default=default.resamples)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--shared", action="store_true", help="only the questions that both have")
    parser.add_argument("--out", type=Path, help="write the comparison as JSON")
    options = parser.parse_args(arguments)
    if not 0 < options.confidence < 1 or options.resamples < 1 or options.seed < 0:
        raise ValueError(
            "--confidence must lie between 0 and 1, --resamples be at least 1 and --seed at least"
            f" 0; got {options.confidence}, {options.resamples}, {options.seed}."
        )
    given = (options.a.resolve(), options.b.resolve())
    if options.out is not None and options.out.resolve() in given:
        raise ValueError(
            f"--out must be a new file; {options.out} is one of the results, which would be lost."
            " Name another."
        )
    bootstrap = Bootstrap(options.confidence, options.resamples, options.seed)
    comparison = compare(read_result(options.a), read_result(options.b), bootstrap, options.shared)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(comparison, indent=1) + "\n")
    print(comparison_text(comparison))
    return 0


def _table(arguments: Sequence[str]) -> int:
    parser = _parser(
        "table", "Results side by side, with the paper's lines.", "table base.json agto.json"
    )
    parser.add_argument("results", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    results = [read_result(path) for path in options.results]
    print(side_by_side(results))
    return 0


def _page(arguments: Sequence[str]) -> int:
    from ..report.document import require_page
    from .page import write_predictions

    parser = _parser(
        "page", "A result as an HTML page with its predictions.", "page r.json --out r.html"
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    require_page(options.out)
    write_predictions(options.out, read_result(options.result))
    print(options.out)
    return 0


def _parser(command: str, description: str | None, example: str = "") -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m avar_fast.evaluate {command}".strip(),
        description=description,
        epilog=f"example:\n  python -m avar_fast.evaluate {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


COMMANDS = {"table": _table, "compare": _compare, "sweep": _sweep, "page": _page}

if __name__ == "__main__":
    sys.exit(main())
