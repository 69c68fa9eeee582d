"""The tables and the picture of the VARS study."""

import statistics
from collections.abc import Callable
from pathlib import Path

from ..tables import markdown, mean_and_deviation
from .paired import paired_difference
from .style_curves import STYLES, Seeds, mean_of
from .vars_arms import LAST, REFERENCES

Endpoint = Callable[[dict], float]


def area(run: dict) -> float:
    """The area under the curve of accuracy over the steps, divided by their number."""
    return statistics.mean(run["accuracy"])


def last_accuracy(run: dict) -> float:
    """Accuracy in the last steps."""
    return statistics.mean(run["accuracy"][-LAST:])


def first_looks(run: dict) -> float:
    """The share of completions that look back in the first steps."""
    return statistics.mean(run["look_back"][:LAST])


def last_looks(run: dict) -> float:
    """The share of completions that look back in the last steps."""
    return statistics.mean(run["look_back"][-LAST:])


COMPARED: tuple[tuple[str, Endpoint], ...] = (
    ("area under accuracy", area),
    (f"accuracy, last {LAST} steps", last_accuracy),
    (f"looks back, last {LAST} steps", last_looks),
)
"""Title and value of what is compared with the same without VARS; the first is the primary
endpoint."""


def arms_table(titles: dict[str, str], results: dict[str, Seeds]) -> str:
    """Every arm's endpoints and their paired differences to the same without VARS."""
    names = [cell for name, _ in COMPARED for cell in (name, "difference")]
    lines = [["", "runs", *names, f"looks back, first {LAST} steps"]]
    for key, title in titles.items():
        runs = results[key]
        cells = [str(len(runs))]
        for _, endpoint in COMPARED:
            compared = ""
            if key in REFERENCES:
                compared = _difference(runs, results[REFERENCES[key]], endpoint)
            cells += [_mean(runs, endpoint), compared]
        lines.append([title, *cells, _mean(runs, first_looks)])
    return markdown(lines)


def findings(titles: dict[str, str], results: dict[str, Seeds]) -> list[str]:
    """A line per arm with VARS: what its difference in the primary endpoint says."""
    lines = []
    for key, other in REFERENCES.items():
        runs, reference = results[key], results[other]
        values, compared = _paired(runs, reference, area)
        verdict = "no interval from fewer than two pairs"
        if len(values) > 1:
            verdict = paired_difference(values, compared).verdict
        lines.append(f"- {titles[key]}: {verdict}, {_difference(runs, reference, area)}.")
    return lines


def styles_table(titles: dict[str, str], results: dict[str, Seeds]) -> str:
    """Accuracy and VARS by style, at the start and at the end."""
    columns = [
        (f"{name}, {style.replace('_', ' ')}", f"{curve}_{style}")
        for name, curve in (("accuracy", "accuracy"), ("VARS", "vars"))
        for style in STYLES
    ]
    columns += [("wrong transcripts", "wrong_transcripts"), ("followed", "follows_wrong")]
    lines = [["", "steps", *(name for name, _ in columns)]]
    for key, title in titles.items():
        for when, chosen in (("first", slice(LAST)), ("last", slice(-LAST, None))):
            cells = []
            for _, curve in columns:
                mean = mean_of([mean_of(run[curve][chosen]) for run in results[key].values()])
                cells.append("" if mean is None else f"{mean:.3g}")
            lines.append([title, when, *cells])
    return markdown(lines)


def plot_curves(path: Path, titles: dict[str, str], results: dict[str, Seeds]) -> None:
    """Accuracy and the share that looks back over the steps; a thin line per seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (("accuracy", "accuracy of the samples"), ("look_back", "share that looks back"))
    for axis, (curve, name) in zip(axes, panels, strict=True):
        for color, (key, title) in enumerate(titles.items()):
            seeds = [run[curve] for run in results[key].values()]
            steps = range(1, len(seeds[0]) + 1)
            for values in seeds:
                axis.plot(steps, values, color=f"C{color}", alpha=0.25, linewidth=0.8)
            means = [statistics.mean(at_step) for at_step in zip(*seeds, strict=True)]
            axis.plot(steps, means, color=f"C{color}", label=title)
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _paired(runs: Seeds, reference: Seeds, endpoint: Endpoint) -> tuple[list[float], list[float]]:
    """An endpoint of the seeds that both have."""
    both = sorted(runs.keys() & reference.keys())
    values, others = ([endpoint(arm[seed]) for seed in both] for arm in (runs, reference))
    return values, others


def _difference(runs: Seeds, reference: Seeds, endpoint: Endpoint) -> str:
    values, others = _paired(runs, reference, endpoint)
    if len(values) > 1:
        return f"{paired_difference(values, others):+.3f}"
    return f"{values[0] - others[0]:+.3f}" if values else ""


def _mean(runs: Seeds, endpoint: Endpoint) -> str:
    """A cell with the mean, and the standard deviation of two runs or more."""
    values = [endpoint(run) for run in runs.values()]
    return mean_and_deviation(values) if len(values) > 1 else f"{values[0]:.3f}"
