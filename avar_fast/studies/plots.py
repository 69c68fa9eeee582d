"""Draws the studies as PNG files. Equal numbers give identical files."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # works without a display

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..bootstrap import Estimate
from .compare import LOG_RATIO, VasComparison
from .correlate import PAPER, Correlation
from .heads import HeadRanking
from .masses import QUANTITIES
from .points import Point
from .score import VasSummary

SHARE = QUANTITIES.index("share")
MASSES = ("text", "visual", "system")
COLORS = ("#1b6ca8", "#d1495b", "#2e8b57", "#edae49", "#7b5ea7", "#5c5c5c")
MOST_STEPS = 24  # with more points, the labels of the steps would overlap
MOST_LAYERS = 12  # with more layers on an axis, some of them have no tick
LABELS = {"ratio": "VAS (ratio)", "log_ratio": "log ratio", "share": "share"}


def plot_summary(path: Path, name: str, summary: VasSummary) -> None:
    """Plots a heat map of heads, and curves over layers and over token positions."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    layers, table = summary.layers, summary.by_head.value[..., LOG_RATIO]
    _heads(figure, axes[0], layers, table, "log ratio", "viridis")
    _curve_over_layers(axes[1], layers, summary.by_layer[..., LOG_RATIO], "log ratio", 0)
    axes[1].set(ylabel="log ratio", title="mean over heads")
    by_position = summary.by_position[..., LOG_RATIO]
    _curve(axes[2], range(len(by_position.value)), by_position, "log ratio", 0)
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[2].set(
        xlabel="part of the row's queries", ylabel="log ratio", title="mean over layers and heads"
    )
    for number, kind in enumerate(MASSES):
        _curve_over_layers(
            axes[3], layers, summary.by_layer[..., QUANTITIES.index(kind)], kind, number
        )
    axes[3].set(ylabel="attention mass", ylim=(0, 1), title="by kind of key")
    axes[3].legend(fontsize=7)
    figure.suptitle(name, fontsize=10)
    _save(figure, path)


def plot_comparison(path: Path, comparison: VasComparison) -> None:
    """Plots the rise of each checkpoint against the threshold, by layer, and by head."""
    shifts = comparison.shifts
    columns = 2 + len(shifts)
    figure, axes = plt.subplots(1, columns, figsize=(3.6 * columns, 3.4), layout="constrained")
    for number, shift in enumerate(shifts):
        rise = shift.overall[LOG_RATIO]
        axes[0].errorbar(
            [number],
            [rise.value],
            [[rise.value - rise.low], [rise.high - rise.value]],
            fmt="o",
            color=COLORS[number % len(COLORS)],
            capsize=4,
        )
        at = (number, rise.high)
        above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
        axes[0].annotate(shift.verdict, at, **above, fontsize=8)
        by_layer = shift.by_layer[..., LOG_RATIO]
        _curve_over_layers(axes[1], comparison.layers, by_layer, shift.name, number)
    axes[0].axhline(comparison.threshold, color="black", linestyle="--", linewidth=0.8)
    axes[0].set_xticks(range(len(shifts)), [shift.name for shift in shifts], fontsize=7)
    axes[0].margins(x=0.5, y=0.2)
    axes[0].set_title(f"rise of the log ratio from {comparison.names[0]}", fontsize=9)
    axes[1].set_ylabel("rise of the log ratio")
    axes[1].set_title("mean over heads", fontsize=9)
    axes[1].legend(fontsize=7)
    for axis, shift in zip(axes[2:], shifts, strict=True):
        table = shift.by_head.value[..., LOG_RATIO]
        # Each map has its own scale. On a common scale, one large shift would make the others pale.
        top = float(np.abs(table).max())
        title = f"{shift.name}, by head"
        _heads(figure, axis, comparison.layers, table, title, "RdBu_r", (-top, top))
    _save(figure, path)


def plot_correlation(
    path: Path, points: Sequence[Point], correlations: Sequence[Correlation]
) -> None:
    """Plots accuracy over each form of the score. Points named KIND-STEP or KIND#SEED-STEP have one
    color per kind."""
    kinds: dict[str, list[tuple[Point, str]]] = {}
    for point in points:
        kind, step = kind_of(point.name)
        kinds.setdefault(kind, []).append((point, step if len(points) <= MOST_STEPS else ""))
    figure, axes = plt.subplots(1, len(correlations), figsize=(15, 4.2), layout="constrained")
    for axis, correlation in zip(axes, correlations, strict=True):
        for number, (kind, members) in enumerate(kinds.items()):
            x = [point.vas[correlation.form] for point, _ in members]
            y = [point.accuracy for point, _ in members]
            axis.scatter(x, y, s=16, color=COLORS[number % len(COLORS)], label=kind)
            for position, (_, step) in zip(zip(x, y, strict=True), members, strict=True):
                axis.annotate(step, position, (3, 3), textcoords="offset points", fontsize=6)
        form = correlation.form
        if form == "ratio" and _spans_decades([point.vas[form] for point in points]):
            axis.set_xscale("log")
        axis.set(xlabel=LABELS[form], ylabel="accuracy")
        title = f"Pearson {correlation.pearson.value:.3f}"
        title += f", Spearman {correlation.spearman.value:.3f}"
        if form == PAPER["form"]:
            title += f"; the paper's Pearson {PAPER['pearson']}"
        axis.set_title(title, fontsize=9)
    axes[-1].legend(fontsize=7)
    _save(figure, path)


def kind_of(name: str) -> tuple[str, str]:
    """(kind, step) of a name KIND-STEP or KIND#SEED-STEP; (name, "") of any other name."""
    match = re.fullmatch(r"(.+?)(?:#\d+)?-(\d+)", name)
    return (match[1], match[2]) if match else (name, "")


def _spans_decades(values: list[float]) -> bool:
    """Whether positive values span more than two decades."""
    return min(values) > 0 and max(values) > 100 * min(values)


def plot_heads(path: Path, name: str, ranking: HeadRanking) -> None:
    """Plots visual mass by head, the effect of masking by head, and one against the other."""
    columns = 1 + 2 * len(ranking.drops)
    figure, axes = plt.subplots(1, columns, figsize=(3.6 * columns, 3.4), layout="constrained")
    layers, mass = ranking.layers, ranking.visual_mass.value
    _heads(figure, axes[0], layers, mass, f"{name}: visual mass", "viridis")
    for number, (mask, drop) in enumerate(ranking.drops.items()):
        table, scatter = axes[1 + 2 * number], axes[2 + 2 * number]
        top = float(np.abs(drop.value).max())
        title = f"loss when masked ({mask})"
        _heads(figure, table, layers, drop.value, title, "RdBu_r", (-top, top))
        errors = [(drop.value - drop.low).ravel(), (drop.high - drop.value).ravel()]
        scatter.errorbar(
            mass.ravel(), drop.value.ravel(), errors, fmt="o", markersize=3, color=COLORS[number]
        )
        scatter.set(xlabel="visual mass", ylabel="nats a token")
        scatter.set_title(f"Spearman {ranking.agreement[mask].value:.3f}", fontsize=9)
    _save(figure, path)


def _heads(
    figure: Figure,
    axis: Axes,
    layers: tuple[int, ...],
    table: np.ndarray,
    title: str,
    colors: str,
    limits: tuple[float | None, float | None] = (None, None),
) -> None:
    """Draws a heat map of a (layers, heads) table whose rows are the given layers."""
    image = axis.imshow(table, cmap=colors, aspect="auto", vmin=limits[0], vmax=limits[1])
    axis.set(xlabel="head", ylabel="layer")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    step = _tick_step(layers)
    axis.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axis.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axis, shrink=0.8)


def _curve_over_layers(
    axis: Axes, layers: tuple[int, ...], estimate: Estimate, label: str, number: int
) -> None:
    """Draws a curve over layers, which stand at their index in the model."""
    _curve(axis, layers, estimate, label, number)
    axis.set_xlabel("layer")
    axis.set_xticks(layers[:: _tick_step(layers)])


def _tick_step(layers: tuple[int, ...]) -> int:
    """n if every n-th layer gets a tick."""
    return math.ceil(len(layers) / MOST_LAYERS)


def _curve(axis: Axes, x: Sequence[int], estimate: Estimate, label: str, number: int) -> None:
    color = COLORS[number % len(COLORS)]
    axis.plot(x, estimate.value, color=color, marker="o", markersize=3, label=label)
    axis.fill_between(x, estimate.low, estimate.high, color=color, alpha=0.2)
    axis.grid(alpha=0.3)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
