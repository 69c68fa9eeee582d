"""The figures of all pages, as HTML with inline SVG: a grid of panels, each below its title."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .heat_map import color_bar, layer_map
from .line_plot import MOST_CURVES, Curve, is_logarithmic, legend, line_plot

MOST_COLUMNS = 60  # of a map of layers over steps


def curves(logs: Mapping[str, list[dict]], metrics: Sequence[tuple[str, str]]) -> str:
    """One panel per metric that a run has logged, with a curve for each of these runs.

    Args:
        logs: {run: JSONL lines}.
        metrics: key in the lines and the panel's title.

    Returns:
        HTML; empty if no run has logged any of the metrics.

    Raises:
        ValueError: there are more runs than curves that can be told apart.
    """
    if len(logs) > MOST_CURVES:
        raise ValueError(
            f"a page must show at most {MOST_CURVES} runs, whose curves can be told apart; got"
            f" {len(logs)}. Leave some out."
        )
    shown = []
    for key, title in metrics:
        found = [
            Curve(name, number, *zip(*points, strict=True))
            for number, (name, log) in enumerate(logs.items())
            if (points := points_of(log, key))
        ]
        if found:
            scale = '<span class="note">logarithmic scale</span>' if is_logarithmic(found) else ""
            caption = f"{html.escape(title)} <code>{html.escape(key)}</code>{scale}"
            shown.append(_panel(caption, line_plot(found)))
    return legend(list(logs)) + _panels(shown) if shown else ""


def points_of(log: Sequence[Mapping], key: str) -> list[tuple[int, float]]:
    """(step, value) of the lines of a log that have a finite number at a key."""
    return [
        (line["step"], float(line[key]))
        for line in log
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]


def vas_tables(tables: Mapping[str, tuple[Sequence[int], list[list[float]]]], title: str) -> str:
    """A heat map (layer x head) per name, on one color scale.

    Args:
        tables: {name: (layers, table)}, with the index in the model of the layer of each row.
        title: name of the color scale.
    """
    maps = {}
    for name, (layers, table) in tables.items():
        array = np.asarray(table, dtype=float)
        maps[name] = layers, [str(head) for head in range(array.shape[1])], array
    return _layer_maps(maps, "head", title)


def layers_over_steps(logs: Mapping[str, Sequence[Mapping]], key: str, title: str) -> str:
    """A heat map (layer x step) per run, on one color scale; empty if no run has logged the metric.
    Of a long log, each column is the mean of several lines, up to the step that it names.

    Args:
        logs: {run: JSONL lines}.
        key: of the metric, whose values are {layer: value}.
        title: name of the color scale.
    """
    maps = {}
    for name, log in logs.items():
        lines = [(line["step"], line[key]) for line in log if isinstance(line.get(key), dict)]
        layers = sorted({int(i) for _, values in lines for i in values if i.isdecimal()})
        if not layers:
            continue
        table = np.array([[_finite(v.get(str(i))) for _, v in lines] for i in layers])
        parts = np.array_split(np.arange(len(lines)), min(len(lines), MOST_COLUMNS))
        means = [[_mean(row[part]) for part in parts] for row in table]
        maps[name] = layers, [str(lines[part[-1]][0]) for part in parts], np.array(means)
    return _layer_maps(maps, "step", title) if maps else ""


def _finite(value: object) -> float:
    """A number of a log; NaN for what is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def _mean(values: np.ndarray) -> float:
    """The mean of the finite values; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _layer_maps(
    maps: Mapping[str, tuple[Sequence[int], Sequence[str], np.ndarray]], kind: str, title: str
) -> str:
    """Heat maps {name: (layers, columns, table)} on one color scale."""
    finite = np.concatenate([table[np.isfinite(table)] for _, _, table in maps.values()])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    drawn = (
        _panel(html.escape(name), layer_map(layers, columns, kind, table, low, high))
        for name, (layers, columns, table) in maps.items()
    )
    return color_bar(low, high, title, "viridis") + _panels(drawn)


def _panel(caption: str, picture: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{picture}</figure>"


def _panels(panels: Iterable[str]) -> str:
    return f'<div class="panels">{"".join(panels)}</div>'
