"""The pictures of the walk study."""

import statistics
from pathlib import Path

from .dose import BIASES, DOSES, NONE, SCALES
from .walk_study_tables import PLAIN, Arms, Runs, difference, ordered, values

STEPS_SHOWN = ("ceiling", "plain", "slow", "enhance", "agto-response-15", "suppress", "placebo")
SCORES_SHOWN = (
    ("vas_user_log_ratio", "VAS log ratio, user's tokens"),
    ("vas_response_log_ratio", "VAS log ratio, response's tokens"),
    ("visual_mass", "visual mass"),
)


def plot_arms(path: Path, titles: dict[str, str], results: dict[str, Arms]) -> None:
    """Paired differences in late accuracy to plain: a dot per run, a bar for the interval."""
    from matplotlib.figure import Figure

    shown = [key for key in titles if key != PLAIN]
    figure = Figure(figsize=(10, 4), layout="constrained")
    (axes,) = figure.subplots(1, len(results), sharey=True, squeeze=False)
    for axis, (tower, arms) in zip(axes, results.items(), strict=True):
        plain = arms[PLAIN]
        for place, key in enumerate(shown):
            if key not in arms:
                continue
            late = [
                {pair: run["scores"]["late_accuracy"] for pair, run in runs.items()}
                for runs in (arms[key], plain)
            ]
            dots = [late[0][pair] - late[1][pair] for pair in late[0].keys() & late[1].keys()]
            axis.plot(dots, [place] * len(dots), "o", color="tab:blue", alpha=0.35)
            found = difference(arms[key], plain)
            axis.errorbar(
                found.mean, place, xerr=found.half_width, fmt="|", color="black", capsize=4,
                markersize=16,
            )  # fmt: skip
        axis.axvline(0, color="gray", linewidth=0.8)
        axis.set_title(f"{tower} heads", fontsize=10)
        axis.set_xlabel("late accuracy less that of plain")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(shown)), [titles[key] for key in shown], fontsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def plot_steps(path: Path, titles: dict[str, str], arms: Arms) -> None:
    """Mean accuracy at each step of the walk."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    for key in STEPS_SHOWN:
        scores = [run["scores"] for run in arms[key].values()]
        steps = range(sum(name.startswith("accuracy_") for name in scores[0]))
        means = [statistics.mean(one[f"accuracy_{step}"] for one in scores) for step in steps]
        axis.plot(steps, means, "o-", label=titles[key])
    axis.set_xlabel("step of the walk")
    axis.set_ylabel("accuracy, the true steps before it given")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)


def plot_scores(path: Path, titles: dict[str, str], arms: Arms) -> None:
    """Late accuracy against scores, a dot per run, a color per arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4), layout="constrained")
    axes = figure.subplots(1, len(SCORES_SHOWN), sharey=True)
    for axis, (endpoint, name) in zip(axes, SCORES_SHOWN, strict=True):
        for color, key in enumerate(ordered(titles, arms)):
            late = values(arms[key], "late_accuracy")
            axis.plot(values(arms[key], endpoint), late, "o", color=f"C{color}", label=titles[key])
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("late accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)


def plot_doses(path: Path, runs: Runs) -> None:
    """Late accuracy over the scale and over the bias of visual keys: thin lines are runs, the thick
    line is their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = (("scale of visual keys", SCALES, 1.0), ("bias of visual keys", BIASES, 0.0))
    unchanged = DOSES.index(NONE)
    for axis, (group, amounts, neutral) in zip(axes, panels, strict=True):
        numbers = [i for i, dose in enumerate(DOSES) if dose.group == group]
        points = sorted([*zip(amounts, numbers, strict=True), (neutral, unchanged)])
        xs = [amount for amount, _ in points]
        curves = [
            [run["doses"][number]["late_accuracy"] for _, number in points] for run in runs.values()
        ]
        for curve in curves:
            axis.plot(xs, curve, color="tab:blue", alpha=0.25, linewidth=0.8)
        means = [statistics.mean(column) for column in zip(*curves, strict=True)]
        axis.plot(xs, means, "o-", color="tab:blue")
        axis.set_xlabel(group)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("late accuracy")
    figure.savefig(path, dpi=110)
