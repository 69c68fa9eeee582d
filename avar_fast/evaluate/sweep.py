"""Evaluates a model over a grid of interventions."""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from ..loading import require_layers
from ..tables import markdown
from ..vas import FORMS
from .arguments import chosen_of, open_tasks, rollout_of, settings_of
from .command import Model, evaluate_once
from .judge.arguments import judge_of
from .ranks import Ranks
from .result import Result, read_result
from .settings import intervention_text
from .table import columns_of

Point = dict[str, float]


def sweep(options: argparse.Namespace, grid: Mapping[str, Sequence[float]], ranks: Ranks) -> int:
    """Writes one result per point of the grid and their table into the folder ``options.out``.
    Finished points are read and not evaluated again.

    Args:
        options: options of the command line.
        grid: {setting: values} of the interventions.
        ranks: processes that share the work.

    Returns:
        The exit code.

    Raises:
        ValueError: a setting is invalid, or the folder holds points of another sweep.
    """
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    settings = [settings_of(options, **point) for point in points]
    chosen = chosen_of(options)
    require_layers(options.model, settings[0].layers)  # the first point may not intervene
    model = Model(options.model, options.dtype, ranks.device, rollout_of(options))
    code = 0
    results: list[tuple[Point, Result]] = []
    with open_tasks(chosen, settings[0]) as tasks:
        judge = judge_of(options, tasks)
        pairs = zip(points, settings, strict=True)
        for number, (point, point_settings) in enumerate(pairs, start=1):
            out = options.out / f"{_name(point)}.json"
            if ranks.rank == 0:
                tqdm.write(f"[{number}/{len(points)}] {_name(point)}", file=sys.stderr)
            code |= evaluate_once(
                out, model, point_settings, tasks, ranks, options.batch_size, judge
            )
            if ranks.rank == 0:
                results.append((point, read_result(out)))
    if ranks.rank == 0:
        _write(options.out, results)
    return code


def _name(point: Point) -> str:
    return ",".join(f"{name}={value:g}" for name, value in point.items())


def _write(folder: Path, results: list[tuple[Point, Result]]) -> None:
    columns = list(columns_of(results[0][1].scores))
    tasks = list(results[0][1].benchmarks)
    vas_columns = [(task, form) for task in tasks for form in FORMS]
    header = [*results[0][0], *columns]
    lines = [header + [f"{task} VAS {form.replace('_', ' ')}" for task, form in vas_columns]]
    points = []
    for point, result in results:
        scores = columns_of(result.scores)
        vas = {task: result.benchmarks[task].vas for task in tasks}
        points.append({"point": point, "scores": scores, "vas": vas})
        line = [f"{value:g}" for value in point.values()]
        line += [f"{scores[column]:.1f}" for column in columns]
        lines.append(line + [f"{vas[t][form]:.4g}" if vas[t] else "-" for t, form in vas_columns])
    point, result = results[0]
    shared = {k: v for k, v in result.head["settings"].items() if k not in point}
    text = "\n\n".join(filter(None, (markdown(lines), intervention_text(shared))))
    whole = {"settings": shared, "points": points}
    (folder / "sweep.json").write_text(json.dumps(whole, indent=1) + "\n")
    (folder / "sweep.md").write_text(text + "\n")
    print(text)
