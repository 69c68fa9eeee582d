"""A figure with one curve per run, as SVG that takes its colors from the page."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .axis import Axis, label_width, step_axis, value_axis

WIDTH, HEIGHT = 360, 210
TOP, RIGHT, BOTTOM = 8, 10, 34  # margins
COLORS = 6  # the page's variables --c0 to --c5
DASHES = ("", "7 3", "2 2.5", "9 3 2 3")
MOST_CURVES = COLORS * len(DASHES)
"""Curves that can be told apart."""
MOST_POINTS = 400  # more points would make the page large and look the same
MOST_DOTS = 30  # curves of more points have no dots
FAINT = 0.35  # opacity of a raw curve; several in one figure share it
THICK, THIN = 4.0, 1.5  # widths of the first and the last of several curves


@dataclass(frozen=True)
class Curve:
    """The values of one metric in one run."""

    name: str
    style: int
    """Number of the run, below ``MOST_CURVES``: it gives the color and the dashes."""
    steps: Sequence[int]
    values: Sequence[float]


def line_plot(curves: Sequence[Curve]) -> str:
    """The figure of one metric.

    A curve of many points is drawn twice: thin as it is, and as a moving average. Of several curves
    the first is the thickest, so that curves that lie on each other can be seen.

    Args:
        curves: of finite values, one point each at least.
    """
    y = value_axis([v for c in curves for v in c.values], HEIGHT - BOTTOM, TOP)
    left = label_width(y.labels) + 10
    x = step_axis([s for c in curves for s in c.steps], left, WIDTH - RIGHT)
    widths = np.linspace(THICK, THIN, len(curves)) if len(curves) > 1 else [THIN]
    parts = [_grid(x, y), *(_raw(curve, x, y, FAINT / len(curves) ** 0.5) for curve in curves)]
    parts += [_curve(curve, x, y, width) for curve, width in zip(curves, widths, strict=True)]
    return svg(WIDTH, HEIGHT, "".join(parts))


def is_logarithmic(curves: Sequence[Curve]) -> bool:
    """Whether the figure of these curves has a logarithmic axis of values."""
    return value_axis([v for c in curves for v in c.values], 0, 1).logarithmic


def legend(names: Sequence[str]) -> str:
    """The names of all runs, with their colors and dashes."""
    items = (
        f'<span><svg viewBox="0 0 28 10" aria-hidden="true"><path d="M0 5H28" {_stroke(i)}'
        f' stroke-width="2.4"/></svg>{html.escape(name)}</span>'
        for i, name in enumerate(names)
    )
    return f'<div class="legend">{"".join(items)}</div>'


def svg(width: float, height: float, content: str) -> str:
    """A picture that takes the width of its box."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{content}</svg>'


def _grid(x: Axis, y: Axis) -> str:
    """Grid lines, ticks' labels and the name of the axis of steps."""
    rule = 'stroke="currentColor" stroke-opacity=".16" stroke-width="1"'
    parts = []
    for tick, text in zip(y.ticks, y.labels, strict=True):
        parts.append(f'<path d="M{x.start:.1f} {y(tick):.1f}H{x.end:.1f}" {rule}/>')
        parts.append(
            f'<text x="{x.start - 5:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for tick, text in zip(x.ticks, x.labels, strict=True):
        parts.append(f'<path d="M{x(tick):.1f} {y.end:.1f}V{y.start:.1f}" {rule}/>')
        anchor = "end" if x(tick) > x.end - 12 else "middle"
        parts.append(
            f'<text x="{x(tick):.1f}" y="{y.start + 14:.1f}" text-anchor="{anchor}">{text}</text>'
        )
    middle = (x.start + x.end) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    return "".join(parts)


def _raw(curve: Curve, x: Axis, y: Axis, opacity: float) -> str:
    """A curve as it is, thin; empty where the moving average is the same."""
    steps, values = np.asarray(curve.steps), np.asarray(curve.values, dtype=float)
    if np.array_equal(_smooth(values), values):
        return ""
    path = _path(*_envelope(steps, values), x, y)
    color = f'stroke="var(--c{curve.style % COLORS})"'
    return f'<path d="{path}" fill="none" {color} stroke-opacity="{opacity:.2g}"/>'


def _curve(curve: Curve, x: Axis, y: Axis, width: float) -> str:
    """The moving average of a curve, with a dot for each value if they are few."""
    steps, values = np.asarray(curve.steps), np.asarray(curve.values, dtype=float)
    smooth = _smooth(values)
    title = f"<title>{html.escape(curve.name)}</title>"
    parts = []
    every = max(1, math.ceil(len(steps) / MOST_POINTS))
    kept = np.append(np.arange(0, len(steps) - 1, every), len(steps) - 1)
    thick = f'{_stroke(curve.style)} stroke-width="{width:.2g}" stroke-linejoin="round"'
    path = _path(steps[kept], smooth[kept], x, y)
    parts.append(f'<path d="{path}" {thick}>{title}</path>')
    if len(steps) <= MOST_DOTS:
        fill = f'fill="var(--c{curve.style % COLORS})"'
        parts += [
            f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="{width / 2 + 1.2:.2g}" {fill}>'
            f"<title>{html.escape(curve.name)}, step {step}: {value:.5g}</title></circle>"
            for step, value in zip(steps, values, strict=True)
        ]
    return "".join(parts)


def _stroke(style: int) -> str:
    """Attributes of a curve's line."""
    dashes = DASHES[style // COLORS]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="var(--c{style % COLORS})"{dashed}'


def _path(steps: np.ndarray, values: np.ndarray, x: Axis, y: Axis) -> str:
    points = zip(steps, values, strict=True)
    return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centered moving average over a twentieth of the curve, over less at its ends."""
    window = np.ones(len(values) // 20 | 1)
    sums, counts = (np.convolve(v, window, mode="same") for v in (values, np.ones_like(values)))
    return values if len(window) == 1 else sums / counts


def _envelope(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of few points with the extremes of the whole one."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    kept = []
    for part in np.array_split(np.arange(len(steps)), MOST_POINTS // 2):
        kept += sorted({part[values[part].argmin()], part[values[part].argmax()]})
    return steps[kept], values[kept]
