"""The study's table and plot."""

import statistics
from pathlib import Path

from ..evaluate.provenance import processor, short_version
from ..tables import markdown, mean_and_deviation

Scores = dict[str, dict[str, dict[str, float]]]
"""TrainingRun -> hints of the test -> measure -> value, of one seed."""
COLUMNS = (
    ("accuracy, hints as in training", "training", "accuracy"),
    ("accuracy, random hints", "random", "accuracy"),
    ("answers that reason", "random", "reasoned"),
    ("VAS log ratio", "random", "log_ratio"),
    ("VAS share", "random", "share"),
    ("VAS ratio", "random", "ratio"),
)
PLOTTED = COLUMNS[1:5]
LAST = 5
READING = (
    "The hints stand in the user turn. AGTO's suppressing term lowers attention on the keys of the"
    " system turn, and no hint is among them, so the term could hardly have taken the shortcut"
    " away. That AGTO leaves the shortcut in place here says nothing about hints in the system"
    " turn; `make hint-study` compares both turns ([hint-study.md](hint-study.md))."
)


def write_study(
    out: Path,
    titles: dict[str, str],
    results: list[Scores],
    curves: dict[str, list[list[float]]],
    rho: float,
    rows: int,
    command: str,
) -> str:
    """Writes ``study.md`` and its pictures in ``img/``; returns the table.

    Args:
        out: the folder.
        titles: of the runs, in order.
        results: one per seed.
        curves: run's title -> per seed the accuracy of each step's samples.
        rho: probability that a training hint is right.
        rows: test questions.
        command: that made the results.
    """
    pictures = out / "img"
    pictures.mkdir(parents=True, exist_ok=True)
    table = _table(titles, results)
    page = [
        "# Does looking pay? AGTO and VARS on a model that has learned a shortcut",
        "",
        f"Mean and standard deviation over {len(results)} seeds (data, order, samples; the base"
        f" model is one, as a pretrained model is); {rows} held-out questions, greedy answers."
        f" Hints tell the right answer with probability {rho:g} in training; a random hint tells"
        " nothing, so accuracy there is what the model reads off the image. VAS (eps 1e-6) over"
        " the user's tokens that see the image, with random hints.",
        "",
        READING,
        "",
        f"`{command}` at commit {short_version()}, {processor()}.",
        "",
        table,
        "",
        "![Accuracy with random hints, share of answers that reason, VAS log ratio and VAS share of"
        " every checkpoint: a dot per seed, a bar for the mean](img/study-seeds.png)",
        "",
        "A greedy answer turns from one kind to the other at once; what the runs of GRPO sampled"
        f" moves step by step. Accuracy of the samples of the last {LAST} steps (training"
        " questions, temperature 1), mean and standard deviation over the seeds:",
        "",
        _ends(curves),
        "",
        "![Accuracy of GRPO's samples over the training steps, with and without VARS: thin lines"
        " are seeds, thick lines their means](img/study-grpo-accuracy.png)",
    ]
    (out / "study.md").write_text("\n".join(page) + "\n")
    _plot(pictures / "study-seeds.png", titles, results)
    _plot_curves(pictures / "study-grpo-accuracy.png", curves)
    return table


def _values(results: list[Scores], run: str, test: str, measure: str) -> list[float]:
    return [scores[run][test][measure] for scores in results]


def _table(titles: dict[str, str], results: list[Scores]) -> str:
    lines = [["", *(name for name, *_ in COLUMNS)]]
    for run, title in titles.items():
        cells = [title]
        for _, test, measure in COLUMNS:
            values = _values(results, run, test, measure)
            cells.append(mean_and_deviation(values, ".3g" if measure == "ratio" else ".3f"))
        lines.append(cells)
    return markdown(lines)


def _ends(curves: dict[str, list[list[float]]]) -> str:
    lines = [["", "sampled accuracy"]]
    for title, seeds in curves.items():
        lines.append(
            [title, mean_and_deviation([statistics.mean(steps[-LAST:]) for steps in seeds])]
        )
    return markdown(lines)


def _plot(path: Path, titles: dict[str, str], results: list[Scores]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, len(PLOTTED), sharey=True)
    places = range(len(titles))
    for axis, (name, test, measure) in zip(axes, PLOTTED, strict=True):
        for place, run in zip(places, titles, strict=True):
            values = _values(results, run, test, measure)
            axis.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.35)
            axis.plot(statistics.mean(values), place, "|", color="black", markersize=18)
        axis.set_title(name, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(list(places), list(titles.values()), fontsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def _plot_curves(path: Path, curves: dict[str, list[list[float]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for color, (title, seeds) in enumerate(curves.items()):
        steps = range(1, len(seeds[0]) + 1)
        for accuracies in seeds:
            axis.plot(steps, accuracies, color=f"C{color}", alpha=0.2, linewidth=0.8)
        means = [statistics.mean(at_step) for at_step in zip(*seeds, strict=True)]
        axis.plot(steps, means, color=f"C{color}", label=title)
    axis.set_xlabel("step")
    axis.set_ylabel("accuracy of the samples")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
