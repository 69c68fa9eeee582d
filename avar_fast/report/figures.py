"""The figures of all pages, as HTML with inline SVG: a grid of panels, each below its title."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .heat_map import color_bar, layer_map
from .line_plot import MOST_CURVES, Curve, is_logarithmic, legend, line_plot


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
    arrays = {name: np.asarray(table, dtype=float) for name, (_, table) in tables.items()}
    finite = np.concatenate([array[np.isfinite(array)] for array in arrays.values()])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    maps = (
        _panel(html.escape(name), layer_map(tables[name][0], array, low, high))
        for name, array in arrays.items()
    )
    return color_bar(low, high, title, "viridis") + _panels(maps)


def _panel(caption: str, picture: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{picture}</figure>"


def _panels(panels: Iterable[str]) -> str:
    return f'<div class="panels">{"".join(panels)}</div>'
