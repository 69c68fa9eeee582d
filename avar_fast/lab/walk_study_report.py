"""The page of the walk study: what was run, tables, pictures."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from ..evaluate.provenance import short_version
from ..tables import markdown, mean_and_deviation
from .dose import DOSES, NONE
from .paired import Difference, paired_difference, share_of_gap
from .walk_study_plots import plot_arms, plot_doses, plot_scores, plot_steps

Results = dict[str, dict[str, list[dict]]]
"""{tower: {arm: one result per pair of base and seed, as ``run_arm`` writes them}}"""
CEILING, PLAIN = "ceiling", "plain"
ENDPOINTS = (
    ("late accuracy", "late_accuracy"),
    ("first step", "first_accuracy"),
    ("follows the rule", "follows_rule"),
    ("visual mass", "visual_mass"),
)
RELIANCE = (
    ("blind", "blind_accuracy"),
    ("reliance", "reliance"),
    ("accuracy, rows with prior", "prior_accuracy"),
    ("blind, rows with prior", "prior_blind_accuracy"),
    ("reliance, rows with prior", "prior_reliance"),
)
VAS = tuple(
    (f"{form.replace('_', ' ')}, {role}", f"vas_{role}_{form}")
    for role in ("user", "response")
    for form in ("ratio", "log_ratio", "share")
)
COMPARED = (
    ("agto-response-15", "slow"),
    ("agto-response-15", "suppress"),
    ("agto-response-15", "enhance"),
    ("agto-response-15", "agto-user-15"),
    ("enhance", "placebo"),
    ("enhance", "slow"),
    ("suppress", "slow"),
)
CORRELATED = (("visual mass", "visual_mass"), *VAS)
LAST = 4  # logged steps whose LM loss is averaged


def write_page(
    out: Path,
    titles: dict[str, str],
    results: Results,
    pairs: dict[str, list[tuple[int, int]]],
    setup: str,
    command: str,
) -> str:
    """Writes ``walk-study.md`` and its pictures in ``img/``; returns the main table.

    Args:
        out: the folder.
        titles: of the arms, in order.
        results: of all pairs.
        pairs: {tower: bases and seeds, in the order of the results}.
        setup: Markdown that says what was trained and tested.
        command: that made the results.
    """
    pictures = out / "img"
    pictures.mkdir(parents=True, exist_ok=True)
    scarce, plenty = results["scarce"], results["plenty"]
    bases = sorted({base for base, _ in pairs["scarce"]})
    main = _arms(titles, scarce)
    page = [
        "# When does AGTO cure a lazy model?",
        "",
        f"{len(bases)} base models; {len(pairs['scarce'])} runs of every arm with scarce heads,"
        f" {len(pairs['plenty'])} with plenty."
        f" `{command}` at commit {short_version()}, {os.cpu_count()} CPU cores.",
        "",
        setup,
        "",
        "## What came out",
        "",
        *_findings(titles, scarce, "scarce"),
        *_findings(titles, plenty, "plenty"),
        "",
        "## Arms, scarce heads",
        "",
        "Mean and standard deviation over the runs. Differences are to `plain`, paired by base and"
        " seed, with a 95 % t interval. `gap` is the share of the distance from plain to ceiling"
        " that an arm closes. LM loss is that of the last steps of training.",
        "",
        main,
        "",
        "![Difference in late accuracy to plain, of every arm and both towers, with"
        " intervals](img/walk-study-arms.png)",
        "",
        "![Accuracy by step of the walk: ceiling, plain and the arms](img/walk-study-steps.png)",
        "",
        "The arms against their controls, paired in the same way:",
        "",
        _comparisons(titles, scarce),
        "",
        "Difference in late accuracy to `plain` by base model, mean over its seeds. Runs of one"
        " base model are not independent; the intervals above treat them as if they were.",
        "",
        _by_base(titles, scarce, pairs["scarce"]),
        "",
        "## Negative control: plenty of heads",
        "",
        _arms(titles, plenty),
        "",
        "## What the models lose without the image",
        "",
        "The attention of all queries to visual keys is cut off (bias -1e4). `blind` is the late"
        " accuracy that remains, `reliance` what is lost. On rows with the prior a model can be"
        " right without looking.",
        "",
        _means(titles, scarce, RELIANCE),
        "",
        "Plenty of heads:",
        "",
        _means(titles, plenty, RELIANCE),
        "",
        "## VAS",
        "",
        "Visual attention score (eps 1e-6) of the tokens that see the image: the user's, as in the"
        " paper, and the response's.",
        "",
        _means(titles, scarce, VAS),
        "",
        "Plenty of heads:",
        "",
        _means(titles, plenty, VAS),
        "",
        "Pearson correlation of score and late accuracy over the finished models of the scarce"
        f" tower ({sum(map(len, scarce.values()))} runs): over all, between arms (their means), and"
        " within arms (each run less the mean of its arm).",
        "",
        _correlations(scarce),
        "",
        "![Late accuracy against the log ratio at the user's and the response's tokens and against"
        " visual mass, a dot per run](img/walk-study-scores.png)",
        "",
        "## Without training: doses",
        "",
        "The attention of the plain models, scarce tower, is changed at inference. Differences are"
        " to the same models unchanged, paired, with a 95 % t interval.",
        "",
        _doses(scarce[PLAIN]),
        "",
        "![Late accuracy over scale and bias of visual keys](img/walk-study-doses.png)",
    ]
    (out / "walk-study.md").write_text("\n".join(page) + "\n")
    plot_arms(pictures / "walk-study-arms.png", titles, results)
    plot_steps(pictures / "walk-study-steps.png", titles, scarce)
    plot_scores(pictures / "walk-study-scores.png", titles, scarce)
    plot_doses(pictures / "walk-study-doses.png", [run["doses"] for run in scarce[PLAIN]])
    return main


def values(runs: list[dict], endpoint: str) -> list[float]:
    """An endpoint of every run."""
    return [run["scores"][endpoint] for run in runs]


def _arms(titles: dict[str, str], arms: dict[str, list[dict]]) -> str:
    late = {key: values(runs, "late_accuracy") for key, runs in arms.items()}
    gap = paired_difference(late[CEILING], late[PLAIN])
    header = ["", "late accuracy", "difference", "gap", *(name for name, _ in ENDPOINTS[1:])]
    lines = [[*header, "LM loss"]]
    for key in _ordered(titles, arms):
        difference, share = "", ""
        if key != PLAIN:
            difference = format(paired_difference(late[key], late[PLAIN]), "+.3f")
            if gap.low > 0:
                share = f"{share_of_gap(late[key], late[PLAIN], late[CEILING]):.0%}"
        cells = [mean_and_deviation(values(arms[key], name)) for _, name in ENDPOINTS]
        losses = [statistics.mean(run["log"]["lm_loss"][-LAST:]) for run in arms[key]]
        lines.append(
            [titles[key], cells[0], difference, share, *cells[1:], mean_and_deviation(losses)]
        )
    return markdown(lines)


def _findings(titles: dict[str, str], arms: dict[str, list[dict]], tower: str) -> list[str]:
    """A sentence per arm: what its interval says."""
    plain = values(arms[PLAIN], "late_accuracy")
    lines = [f"With {tower} heads, late accuracy against `plain`:", ""]
    for key in _ordered(titles, arms):
        if key != PLAIN:
            difference = paired_difference(values(arms[key], "late_accuracy"), plain)
            lines.append(f"- {titles[key]}: {_verdict(difference)}, {difference:+.3f}.")
    return [*lines, ""]


def _verdict(difference: Difference) -> str:
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference shown"


def _comparisons(titles: dict[str, str], arms: dict[str, list[dict]]) -> str:
    columns = ENDPOINTS[:3]
    lines = [["arm", "less", *(name for name, _ in columns)]]
    for key, other in COMPARED:
        cells = [
            format(paired_difference(values(arms[key], name), values(arms[other], name)), "+.3f")
            for _, name in columns
        ]
        lines.append([titles[key], titles[other], *cells])
    return markdown(lines)


def _ordered(titles: dict[str, str], arms: dict[str, list[dict]]) -> list[str]:
    return [key for key in titles if key in arms]


def _by_base(
    titles: dict[str, str], arms: dict[str, list[dict]], pairs: Sequence[tuple[int, int]]
) -> str:
    bases = sorted({base for base, _ in pairs})
    plain = values(arms[PLAIN], "late_accuracy")
    lines = [["", *(f"base {base}" for base in bases)]]
    for key in _ordered(titles, arms):
        if key == PLAIN:
            continue
        late = values(arms[key], "late_accuracy")
        cells = [
            statistics.mean(
                late[i] - plain[i] for i, (other, _) in enumerate(pairs) if other == base
            )
            for base in bases
        ]
        lines.append([titles[key], *(f"{cell:+.3f}" for cell in cells)])
    return markdown(lines)


def _means(
    titles: dict[str, str], arms: dict[str, list[dict]], columns: Sequence[tuple[str, str]]
) -> str:
    lines = [["", *(name for name, _ in columns)]]
    for key in _ordered(titles, arms):
        cells = []
        for _, endpoint in columns:
            digits = ".3g" if endpoint.endswith("_ratio") and "log" not in endpoint else ".3f"
            cells.append(mean_and_deviation(values(arms[key], endpoint), digits))
        lines.append([titles[key], *cells])
    return markdown(lines)


def _correlations(arms: dict[str, list[dict]]) -> str:
    lines = [["", "over all", "between arms", "within arms"]]
    late = [values(runs, "late_accuracy") for runs in arms.values()]
    for name, endpoint in CORRELATED:
        scores = [values(runs, endpoint) for runs in arms.values()]
        lines.append([name, *(f"{r:.2f}" for r in correlations(scores, late))])
    return markdown(lines)


def correlations(scores: list[list[float]], late: list[list[float]]) -> tuple[float, float, float]:
    """Pearson's coefficient over all runs, of the means of the arms, and of the runs less these
    means.

    Args:
        scores, late: a list per arm, with a value per run.
    """

    def flat(arms: list[list[float]], centered: bool) -> list[float]:
        return [x - statistics.mean(arm) * centered for arm in arms for x in arm]

    means = [[statistics.mean(arm) for arm in arms] for arms in (scores, late)]
    return (
        statistics.correlation(flat(scores, False), flat(late, False)),
        statistics.correlation(*means),
        statistics.correlation(flat(scores, True), flat(late, True)),
    )


def _doses(runs: list[dict]) -> str:
    unchanged = DOSES.index(NONE)
    lines = [["", "dose", "late accuracy", "difference", *(name for name, _ in ENDPOINTS[1:])]]
    for number, dose in enumerate(DOSES):
        found = {name: [run["doses"][number][name] for run in runs] for _, name in ENDPOINTS}
        cells = [mean_and_deviation(found[name]) for _, name in ENDPOINTS]
        difference = ""
        if dose is not NONE:
            reference = [run["doses"][unchanged]["late_accuracy"] for run in runs]
            difference = format(paired_difference(found["late_accuracy"], reference), "+.3f")
        lines.append([dose.group, dose.value, cells[0], difference, *cells[1:]])
    return markdown(lines)
