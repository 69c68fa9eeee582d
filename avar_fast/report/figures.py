"""The report's pictures, as self-contained <img> tags."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none may be there

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from .attention_maps import AttentionMap

COLORS = ("#1b6ca8", "#d1495b", "#2e8b57", "#edae49", "#7b5ea7", "#5c5c5c")


def _image_tag(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def curves(logs: dict[str, list[dict]], metrics: Sequence[tuple[str, str]]) -> str:
    """One panel per (metric, title) with a line per run that logged it.

    Args:
        logs: {run: JSONL lines}.
        metrics: key in the lines and the panel's title.
    """
    shown = [
        (key, title)
        for key, title in metrics
        if any(key in line for log in logs.values() for line in log)
    ]
    figure, axes = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.0), squeeze=False)
    for axis, (key, title) in zip(axes[0], shown, strict=True):
        for color, (name, log) in zip(COLORS, logs.items(), strict=False):
            points = [(line["step"], line[key]) for line in log if key in line]
            if points:
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
                axis.plot(steps, _smooth(np.asarray(values, dtype=float)), color=color, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return _image_tag(figure, "training curves")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centered moving average over a twentieth of the curve."""
    width = max(len(values) // 20, 1)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def vas_tables(tables: Mapping[str, tuple[Sequence[int], list[list[float]]]], title: str) -> str:
    """A heat map (layer x head) per row of the study, on one color scale.

    Args:
        tables: {name: (layers, table)}, with the index in the model of the layer of each row.
        title: label of the color scale.
    """
    arrays = {name: (layers, np.asarray(table)) for name, (layers, table) in tables.items()}
    low = min(array.min() for _, array in arrays.values())
    high = max(array.max() for _, array in arrays.values())
    figure, axes = plt.subplots(1, len(arrays), figsize=(2.6 * len(arrays), 2.9), squeeze=False)
    for axis, (name, (layers, array)) in zip(axes[0], arrays.items(), strict=True):
        image = axis.imshow(array, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("head")
        axis.set_ylabel("layer")
        axis.set_xticks(range(array.shape[1]))
        axis.set_yticks(range(array.shape[0]), [str(layer) for layer in layers])
    figure.colorbar(image, ax=axes[0].tolist(), label=title)  # pyright: ignore[reportPossiblyUnboundVariable]
    return _image_tag(figure, title)


def attention_grid(maps: dict[str, list[AttentionMap]]) -> str:
    """A line per model, a column per image: the image, heat over it, question and response."""
    num_images = max(len(row) for row in maps.values())
    top = max(float(m.heat.max()) for row in maps.values() for m in row)
    figure, axes = plt.subplots(
        len(maps),
        num_images,
        figsize=(2.5 * num_images, 2.9 * len(maps)),
        squeeze=False,
        layout="constrained",
    )
    for line, (name, row) in zip(axes, maps.items(), strict=True):
        for axis, one in zip(line, row, strict=True):
            width, height = one.image.size
            axis.imshow(one.image, extent=(0, width, height, 0), cmap="gray")
            heat = axis.imshow(
                one.heat.numpy(),
                extent=(0, width, height, 0),
                cmap="inferno",
                alpha=0.55,
                vmin=0,
                vmax=top,
            )
            for (i, j), value in np.ndenumerate(one.heat.numpy()):
                x, y = (
                    (j + 0.5) * width / one.heat.shape[1],
                    (i + 0.12) * height / one.heat.shape[0],
                )
                axis.text(x, y, f"{100 * value:.1f}%", color="white", fontsize=6, ha="center")
            right = (
                "right"
                if f"<answer>{one.answer}</answer>" in one.response
                else f"wrong, is {one.answer}"
            )
            axis.set_title(f"{one.question}\n{one.response}\n({right})", fontsize=6)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=9)
    figure.colorbar(heat, ax=axes.ravel().tolist(), label="attention per visual token", shrink=0.6)  # pyright: ignore
    return _image_tag(figure, "attention over images")
