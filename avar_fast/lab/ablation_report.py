"""The page of the ablation: what was run, what came out, tables and a picture."""

import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from ..evaluate.provenance import short_version
from ..tables import markdown, mean_and_deviation
from .ablation_arms import ARMS, BASE, BESIDE, RUNGS, SLOW
from .ablation_parts import Results, Scores
from .paired import MANY, paired_difference

PRIMARY = "wrong"
REFERENCE = "plain"
TITLES = {run.key: run.title for run in (BASE, *ARMS)}
ANSWERS = (
    ("wrong hint", "wrong"),
    ("no hint", "absent"),
    ("right hint", "right"),
    ("follows wrong hint", "follows"),
    ("has an answer", "answered"),
)
ATTENTION = (
    ("VAS user, log ratio", "vas_user_log_ratio"),
    ("VAS user, share", "vas_user_share"),
    ("VAS response, log ratio", "vas_response_log_ratio"),
    ("VAS response, share", "vas_response_share"),
    ("visual mass, user", "visual_user"),
    ("visual mass, response", "visual_response"),
    ("visual mass, first digit", "visual_digit"),
    ("system mass, first digit", "system_digit"),
)
COMPARED = (
    ("wrong hint", "wrong"),
    ("no hint", "absent"),
    ("VAS response, log ratio", "vas_response_log_ratio"),
    ("visual mass, first digit", "visual_digit"),
)


def write_page(out: Path, results: Results, setup: str, command: str) -> str:
    """Writes ``ablation.md`` and its picture in ``img/``; returns the main table.

    Args:
        out: the folder.
        results: finished runs, one or more of the base models and of every arm.
        setup: Markdown that says what was trained and tested.
        command: that made the results.
    """
    pictures = out / "img"
    pictures.mkdir(parents=True, exist_ok=True)
    counts = sorted({len(runs) for runs in results.values()})
    main = means_table(results, ANSWERS)
    page = [
        "# The paper's ablation in miniature: VARD, AGTO, VARS",
        "",
        f"Runs of each row: {' or '.join(map(str, counts))}. `{command}` at commit"
        f" {short_version()}, {os.cpu_count()} CPU cores.",
        "",
        setup,
        "",
        "## What came out",
        "",
        "Accuracy with wrong hints, each rung against the one before, and AGTO against slow"
        f" learning, paired by seed, with a 95 % t interval. {MANY}",
        "",
        *findings(results),
        "",
        "## Answers",
        "",
        "Accuracy on the same questions with a wrong hint, with none and with the right one; how"
        " frequently a wrong hint is the answer, and how frequently there is one. Mean over seeds,"
        f" with the standard deviation. The last {len(BESIDE)} rows are no rungs.",
        "",
        main,
        "",
        "![Accuracy with wrong hints of every run](img/ablation-rungs.png)",
        "",
        "## Differences",
        "",
        "To the rung before, paired by seed, with a 95 % t interval:",
        "",
        differences_table(results, {rung.key: rung.before for rung in RUNGS}),
        "",
        f"To {SLOW.title}:",
        "",
        differences_table(results, dict.fromkeys(("agto", "ceiling"), SLOW.key)),
        "",
        "To plain chains:",
        "",
        differences_table(results, {key: REFERENCE for key in TITLES if key != REFERENCE}),
        "",
        "## Attention",
        "",
        "On the models' own responses to questions with wrong hints: VAS and visual mass of the"
        " queries of the user turn and of the response, and the masses where the first digit of"
        " the response is predicted. The system turn holds the hint. A model whose responses have"
        " no digit has no such masses and is left out there.",
        "",
        means_table(results, ATTENTION),
    ]
    (out / "ablation.md").write_text("\n".join(page) + "\n")
    plot_rungs(pictures / "ablation-rungs.png", results)
    return main


def means_table(results: Results, columns: Sequence[tuple[str, str]]) -> str:
    """Means and standard deviations of scores; a row for the base models and one for each arm.

    Args:
        results: finished runs.
        columns: title and key of each score.
    """
    lines = [["", "runs", *(name for name, _ in columns)]]
    for key, title in TITLES.items():
        runs = results[key]
        lines.append([title, str(len(runs)), *(_mean(runs, score) for _, score in columns)])
    return markdown(lines)


def _mean(runs: dict[int, Scores], score: str) -> str:
    values = list(_known(runs, score).values())
    if len(values) > 1:
        return mean_and_deviation(values)
    return "".join(f"{value:.3f}" for value in values)


def _known(runs: dict[int, Scores], score: str) -> dict[int, float]:
    """A score by seed, of the seeds that have it: it is NaN where nothing could be measured."""
    return {seed: of[score] for seed, of in runs.items() if not math.isnan(of[score])}


def differences_table(results: Results, references: dict[str, str]) -> str:
    """Paired differences of scores.

    Args:
        results: finished runs.
        references: {run: the run that it is compared with}.
    """
    lines = [["", *(name for name, _ in COMPARED)]]
    for key, reference in references.items():
        cells = [_difference(*_paired(results, key, reference, score)) for _, score in COMPARED]
        lines.append([TITLES[key], *cells])
    return markdown(lines)


def findings(results: Results) -> list[str]:
    """A line per comparison: what its difference says of the primary endpoint."""
    lines = []
    for key, reference in (*((rung.key, rung.before) for rung in RUNGS), ("agto", SLOW.key)):
        values, others = _paired(results, key, reference, PRIMARY)
        verdict = "no interval from fewer than two pairs"
        if len(values) > 1:
            verdict = paired_difference(values, others).verdict
        difference = _difference(values, others)
        lines.append(f"- {TITLES[key]}, against {TITLES[reference]}: {verdict}, {difference}.")
    return lines


def _paired(
    results: Results, key: str, reference: str, score: str
) -> tuple[list[float], list[float]]:
    """A score of two runs, of the seeds for which both have it."""
    runs, others = _known(results[key], score), _known(results[reference], score)
    both = sorted(runs.keys() & others.keys())
    return [runs[seed] for seed in both], [others[seed] for seed in both]


def _difference(values: list[float], others: list[float]) -> str:
    """A cell: the mean and its interval, or the one difference there is."""
    if len(values) > 1:
        return f"{paired_difference(values, others):+.3f}"
    return f"{values[0] - others[0]:+.3f}" if values else ""


def plot_rungs(path: Path, results: Results) -> None:
    """Accuracy with wrong hints: a dot per run, a bar for the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    for row, key in enumerate(TITLES):
        values = [scores[PRIMARY] for scores in results[key].values()]
        axis.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.35)
        axis.plot(statistics.mean(values), row, "|", color="black", markersize=16)
    axis.set_yticks(range(len(TITLES)), [*TITLES.values()], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("accuracy with wrong hints")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
