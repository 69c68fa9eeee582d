"""The pictures of the walk study."""

import statistics
from pathlib import Path

from .dose import BIASES, DOSES, NONE, SCALES
from .paired import paired_difference

Arms = dict[str, list[dict]]
"""{arm: one result per run}"""
STEPS_SHOWN = ("ceiling", "plain", "enhance", "agto-response-15", "suppress", "placebo")
SCORES_SHOWN = (
    ("vas_user_log_ratio", "VAS log ratio, user's tokens"),
    ("vas_response_log_ratio", "VAS log ratio, response's tokens"),
    ("visual_mass", "visual mass"),
)


def _late(runs: list[dict], endpoint: str = "late_accuracy") -> list[float]:
    return [run["scores"][endpoint] for run in runs]


def plot_arms(path: Path, titles: dict[str, str], results: dict[str, Arms]) -> None:
    """Paired differences in late accuracy to plain: a dot per run, a bar for the interval."""
    from matplotlib.figure import Figure

    shown = [key for key in titles if key not in ("plain", "ceiling")]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, len(results), sharey=True)
    for axis, (tower, arms) in zip(axes, sorted(results.items(), reverse=True), strict=True):
        plain = _late(arms["plain"])
        for place, key in enumerate(shown):
            if key not in arms:
                continue
            late = _late(arms[key])
            difference = paired_difference(late, plain)
            dots = [value - other for value, other in zip(late, plain, strict=True)]
            axis.plot(dots, [place] * len(dots), "o", color="tab:blue", alpha=0.35)
            axis.errorbar(
                difference.mean, place, xerr=difference.half_width, fmt="|", color="black",
                capsize=4, markersize=16,
            )  # fmt: skip
        axis.axvline(0, color="gray", linewidth=0.8)
        gap = paired_difference(_late(arms["ceiling"]), plain)
        axis.axvspan(gap.low, gap.high, color="tab:green", alpha=0.15, label="ceiling")
        axis.set_title(f"{tower} heads", fontsize=10)
        axis.set_xlabel("late accuracy less that of plain")
        axis.legend(fontsize=8, loc="lower right")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(shown)), [titles[key] for key in shown], fontsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def plot_steps(path: Path, titles: dict[str, str], arms: Arms) -> None:
    """Mean accuracy at each step of the walk."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for key in STEPS_SHOWN:
        scores = [run["scores"] for run in arms[key]]
        steps = range(sum(name.startswith("accuracy_") for name in scores[0]))
        means = [statistics.mean(one[f"accuracy_{step}"] for one in scores) for step in steps]
        axis.plot(steps, means, "o-", label=titles[key])
    axis.set_xlabel("step of the walk")
    axis.set_ylabel("accuracy, the true steps before it given")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def plot_scores(path: Path, titles: dict[str, str], arms: Arms) -> None:
    """Late accuracy against scores, a dot per run, a color per arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, len(SCORES_SHOWN), sharey=True)
    for axis, (endpoint, name) in zip(axes, SCORES_SHOWN, strict=True):
        for color, key in enumerate(key for key in titles if key in arms):
            scores = _late(arms[key], endpoint)
            axis.plot(scores, _late(arms[key]), "o", color=f"C{color}", label=titles[key])
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("late accuracy")
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def plot_doses(path: Path, doses: list[list[dict[str, float]]]) -> None:
    """Late accuracy over the scale and over the bias of visual keys: thin lines are runs, the thick
    line is their mean.

    Args:
        doses: per run what ``score_doses`` returns.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = (("scale of visual keys", SCALES, 1.0), ("bias of visual keys", BIASES, 0.0))
    unchanged = DOSES.index(NONE)
    for axis, (group, amounts, neutral) in zip(axes, panels, strict=True):
        numbers = [i for i, dose in enumerate(DOSES) if dose.group == group]
        points = sorted([*zip(amounts, numbers, strict=True), (neutral, unchanged)])
        xs = [amount for amount, _ in points]
        curves = [[run[number]["late_accuracy"] for _, number in points] for run in doses]
        for curve in curves:
            axis.plot(xs, curve, color="tab:blue", alpha=0.25, linewidth=0.8)
        means = [statistics.mean(column) for column in zip(*curves, strict=True)]
        axis.plot(xs, means, "o-", color="tab:blue")
        axis.set_xlabel(group)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("late accuracy")
    figure.savefig(path, dpi=110)
