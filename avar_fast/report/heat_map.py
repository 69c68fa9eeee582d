"""Heat maps as SVG: VAS by layer and head, or by layer and step."""

import html
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from .axis import CHARACTER, label, label_width
from .line_plot import WIDTH, svg

TOP, RIGHT = 7, 8  # margins; labels of small cells are larger than their cells
MAP_HEIGHT = 240  # of the cells, if they can be that large
CELL_HEIGHTS = (5.0, 26.0)  # least and most
MOST_CELL_WIDTH = 44.0
ROW_LABEL, COLUMN_LABEL = 13.0, 16.0  # least distance of two labels


def color(value: float, low: float, high: float, colors: str) -> str:
    """The color of a value in a matplotlib color map; none where the value is not finite."""
    if not math.isfinite(value):
        return "none"
    return to_hex(matplotlib.colormaps[colors]((value - low) / ((high - low) or 1.0)))


def color_bar(low: float, high: float, title: str, colors: str) -> str:
    """The color scale of the maps below it, in one line."""
    stops = ",".join(color(i / 8, 0, 1, colors) for i in range(9))
    return (
        f'<div class="scale"><span>{html.escape(title)}</span><span>{label(_rounded(low))}'
        f'<i style="background:linear-gradient(to right,{stops})"></i>'
        f"{label(_rounded(high))}</span></div>"
    )


def layer_map(
    layers: Sequence[int],
    columns: Sequence[str],
    kind: str,
    table: np.ndarray,
    low: float,
    high: float,
) -> str:
    """A map with a row per layer.

    Args:
        layers: index in the model of the layer of each row.
        columns: name of each column.
        kind: what the columns are, "head" or "step".
        table: (layers, columns) values.
        low, high: ends of the color scale.
    """
    rows, count = table.shape
    least, most = CELL_HEIGHTS
    height = min(most, max(least, MAP_HEIGHT / rows))
    left = label_width([str(layer) for layer in layers]) + 22
    width = min(MOST_CELL_WIDTH, (WIDTH - left - RIGHT) / count)
    parts = [
        f'<rect x="{left + j * width:.2f}" y="{TOP + i * height:.2f}" width="{width:.2f}"'
        f' height="{height:.2f}" fill="{color(value, low, high, "viridis")}">'
        f"<title>layer {layers[i]}, {kind} {columns[j]}: {value:.4g}</title></rect>"
        for (i, j), value in np.ndenumerate(table)
    ]
    for i in range(0, rows, math.ceil(ROW_LABEL / height)):
        middle = TOP + (i + 0.5) * height + 4
        parts.append(
            f'<text class="layer" x="{left - 5:.1f}" y="{middle:.1f}" text-anchor="end">'
            f"{layers[i]}</text>"
        )
    bottom = TOP + rows * height
    room = max(COLUMN_LABEL, CHARACTER * max(map(len, columns)) + 6)
    for j in range(0, count, math.ceil(room / width)):
        middle = left + (j + 0.5) * width
        parts.append(
            f'<text x="{middle:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{columns[j]}</text>'
        )
    middle = left + count * width / 2
    parts.append(f'<text x="{middle:.1f}" y="{bottom + 28:.1f}" text-anchor="middle">{kind}</text>')
    parts.append(
        f'<text transform="translate(10 {bottom / 2:.1f}) rotate(-90)" text-anchor="middle">'
        "layer</text>"
    )
    # The height holds the word "layer" also beside a single row.
    cells = "".join(parts)
    return svg(WIDTH, max(bottom + 32, 60), f'<g shape-rendering="crispEdges">{cells}</g>')


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
