"""Pictures of the benchmarks: one per operation and mode, a panel per machine and dtype."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter

CsvRows = list[dict[str, str]]
COLORS = 2 * [*mpl.colormaps["tab10"].colors, *mpl.colormaps["Dark2"].colors]  # pyright: ignore
PLOTTED = ("time_over_anchor", "extra_memory")
ANCHOR = {  # what a ratio is over, by op
    "decode": "torch's fused attention",
    "attention": "torch's fused attention without mass",
}
HEADLINE = {  # provider -> label and line of the README's picture
    "eager_output_attentions": ("eager attention with its weights", "C3s--"),
    "second_sdpa_call": ("fused attention called twice", "C1^--"),
    "avar_cpu": ("avar, one call", "C0o-"),
    "sdpa_without_mass": ("fused attention, no mass", "C7-"),
}
HEADLINE_NAME = "attention-mass-cost.png"


def grouped(rows: CsvRows, *keys: str) -> dict[tuple[str, ...], CsvRows]:
    """CsvRows by the values of the keys, in the order of their first appearance."""
    groups: dict[tuple[str, ...], CsvRows] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return dict(groups)


def draw_suite(suite: str, rows: CsvRows, folder: Path) -> list[tuple[Path, str]]:
    """Draws ratio and memory against length for every operation and mode of a suite.

    Returns:
        (file, alt text) of each picture. What was measured at a single length has none.
    """
    pictures = []
    positive = [row for row in rows if float(row["p50"]) > 0]  # the axes are logarithmic
    for (op, mode, metric), measured in grouped(positive, "op", "mode", "metric").items():
        panels = {
            panel: of_panel
            for panel, of_panel in grouped(measured, "device", "dtype", "shape").items()
            if any(len(line) > 1 for line in grouped(of_panel, "provider").values())
        }
        if metric not in PLOTTED or not panels:
            continue
        subject = f"{op} {mode}".replace("_", " ").replace("forward backward", "forward + backward")
        quantity = _quantity(op, metric)
        columns = min(len(panels), 2)
        lines = math.ceil(len(panels) / columns)
        figure, axes = plt.subplots(
            lines,
            columns,
            figsize=(3.4 * columns + 2.2, 3.2 * lines + 0.3),
            squeeze=False,
            layout="constrained",
        )
        providers = sorted({row["provider"] for of_panel in panels.values() for row in of_panel})
        legend = {}
        for axis, (panel, of_panel) in zip(axes.flat, panels.items(), strict=False):
            device, dtype, shape = panel
            for (provider,), line in sorted(grouped(of_panel, "provider").items()):
                if len(line) > 1:
                    style = "o-" if provider.startswith("avar") else "s--"
                    color = COLORS[providers.index(provider)]
                    label = provider.replace("_", " ")
                    legend[label] = _line(axis, line, style, label, color)
            _finish(axis, f"{dtype}, {shape}\n{device}", metric)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        figure.supylabel(quantity, fontsize=8)
        names = sorted(legend)
        handles = [legend[name] for name in names]
        figure.legend(handles, names, loc="outside right center", fontsize=8, frameon=False)
        figure.suptitle(subject, fontsize=11)
        path = folder / f"{_file_stem(suite, op, mode, metric)}.png"
        save_figure(figure, path, dpi=110)
        pictures.append((path, f"{subject}: {quantity}, against sequence length, by provider"))
    return pictures


def draw_headline(rows: CsvRows, folder: Path) -> None:
    """Draws what mass costs: time over fused attention in two dtypes, and memory.

    Args:
        rows: of the suite attention; those of the machine that ran the cpu backend are drawn.
        folder: of the picture.
    """
    ours = next(row for row in rows if row["provider"] == "avar_cpu")
    machine, threads = ours["device"], ours["threads"]
    rows = [r for r in rows if (r["device"], r["mode"]) == (machine, "forward_backward")]
    panels = (
        ("time, float32", "float32", "time_over_anchor"),
        ("time, bfloat16", "bfloat16", "time_over_anchor"),
        ("extra memory, float32", "float32", "extra_memory"),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.9), layout="constrained")
    axes[1].sharey(axes[0])
    for axis, (title, dtype, metric) in zip(axes, panels, strict=True):
        axis.set(xscale="log", yscale="log")
        for provider, (label, style) in HEADLINE.items():
            line = [
                row
                for row in rows
                if (row["provider"], row["dtype"], row["metric"]) == (provider, dtype, metric)
            ]
            if line:
                _line(axis, line, style, label)
        if metric == "time_over_anchor":
            label, style = HEADLINE["sdpa_without_mass"]
            axis.axhline(1, color=style[:2], label=label)
        _finish(axis, title, metric)
    axes[0].set_ylabel("times fused attention (lower is better)", fontsize=9)
    axes[2].set_ylabel("MiB", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(
        "Attention with exact mass per key type, forward + backward\n"
        f"one layer of Qwen2.5-VL-7B on a CPU: {machine}, {threads} threads",
        fontsize=10,
    )
    save_figure(figure, folder / HEADLINE_NAME, dpi=160)


def _file_stem(suite: str, op: str, mode: str, metric: str) -> str:
    parts = [suite, mode, metric] if suite in op else [suite, op, mode, metric]
    return "-".join(["bench", *parts]).replace("_", "-")


def _quantity(op: str, metric: str) -> str:
    if metric == "extra_memory":
        return "extra memory in MiB"
    return f"time over {ANCHOR.get(op, 'the reference')}"


def _line(axis: Axes, rows: CsvRows, style: str, label: str, color: object | None = None) -> Line2D:
    points = sorted((int(row["length"]), float(row["p50"])) for row in rows)
    options: dict[str, Any] = {} if color is None else {"color": color}
    (line,) = axis.plot(*zip(*points, strict=True), style, label=label, markersize=4, **options)
    return line


def _finish(axis: Axes, title: str, metric: str) -> None:
    axis.set(xscale="log", yscale="log", xlabel="sequence length L")
    axis.set_title(title, fontsize=9)
    drawn = [np.asarray(line.get_xdata(), dtype=float) for line in axis.get_lines()]
    lengths = sorted({int(x) for xs in drawn for x in xs if x > 1})  # an axhline spans 0 to 1
    axis.set_xticks(lengths, [str(length) for length in lengths], fontsize=8)
    axis.xaxis.set_minor_formatter(NullFormatter())
    if metric == "time_over_anchor":
        low, high = axis.get_ylim()
        ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16) if low <= t <= high]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.yaxis.set_major_formatter(ScalarFormatter())
        low, high = axis.get_ylim()
        if high < 10 * low:  # a single decade would show one tick
            axis.yaxis.set_minor_formatter(ScalarFormatter())
        else:
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="y", which="both", labelsize=8)
    axis.grid(visible=True, which="major", alpha=0.3)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
    plt.close(figure)
