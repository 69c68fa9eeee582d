"""The tables of the walk study."""

import math
import statistics
from collections.abc import Sequence

from ..tables import markdown, mean_and_deviation
from .dose import DOSES, NONE
from .paired import PairedDifference, paired_difference, share_of_gap

Pair = tuple[int, int]
"""Base model and seed."""
Runs = dict[Pair, dict]
"""{pair: result}, as ``run_arm`` writes it."""
Arms = dict[str, Runs]
"""{arm: its finished runs}"""
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
CORRELATED = (("visual mass", "visual_mass"), *VAS, RELIANCE[-1])
LAST = 20  # steps of training whose LM loss is averaged


def values(runs: Runs, endpoint: str) -> list[float]:
    """An endpoint of every run, in the order of their pairs."""
    return [runs[pair]["scores"][endpoint] for pair in sorted(runs)]


def difference(runs: Runs, reference: Runs, endpoint: str = "late_accuracy") -> PairedDifference:
    """Paired difference over the pairs that both have."""
    return paired_difference(*(values(arm, endpoint) for arm in _common((runs, reference))))


def _common(arms: Sequence[Runs]) -> list[Runs]:
    """The runs of each arm that belong to a pair of base and seed which all these arms have."""
    pairs = set.intersection(*(set(runs) for runs in arms))
    return [{pair: runs[pair] for pair in pairs} for runs in arms]


def base_means(runs: Runs, reference: Runs) -> dict[int, tuple[float, float]]:
    """{base model: both arms' late accuracy, mean over its seeds}, of the pairs that both have."""
    of_base: dict[int, list[Pair]] = {}
    for pair in sorted(runs.keys() & reference.keys()):
        of_base.setdefault(pair[0], []).append(pair)
    means = {}
    for base, pairs in of_base.items():
        of_both = ({pair: arm[pair] for pair in pairs} for arm in (runs, reference))
        value, other = (statistics.mean(values(arm, "late_accuracy")) for arm in of_both)
        means[base] = (value, other)
    return means


def difference_over_bases(runs: Runs, reference: Runs) -> PairedDifference | None:
    """Paired difference in late accuracy of the base models' means; None of a single one.

    Runs of one base model are alike, so this tells what another base model would give.
    """
    means = list(base_means(runs, reference).values())
    if len(means) < 2:
        return None
    return paired_difference(*([mean[i] for mean in means] for i in (0, 1)))


def ordered(titles: dict[str, str], arms: Arms) -> list[str]:
    """The keys of arms in the order of their titles."""
    return [key for key in titles if key in arms]


def arms_table(titles: dict[str, str], arms: Arms) -> str:
    """Every arm's endpoints, and its paired difference to plain."""
    gap = difference(arms[CEILING], arms[PLAIN])
    header = ["", "runs", "late accuracy", "difference", "gap"]
    lines = [[*header, *(name for name, _ in ENDPOINTS[1:]), "LM loss"]]
    for key in ordered(titles, arms):
        runs, compared, share = arms[key], "", ""
        if key != PLAIN:
            found = difference(runs, arms[PLAIN])
            compared = f"{found:+.3f}"
            if gap.low > 0:
                three = [arms[arm] for arm in (key, PLAIN, CEILING)]
                common = [values(arm, "late_accuracy") for arm in _common(three)]
                share = f"{share_of_gap(*common):.0%}"
        first, *others = (mean_and_deviation(values(runs, name)) for _, name in ENDPOINTS)
        losses = [statistics.mean(runs[pair]["log"]["lm_loss"][-LAST:]) for pair in sorted(runs)]
        cells = [str(len(runs)), first, compared, share, *others, mean_and_deviation(losses)]
        lines.append([titles[key], *cells])
    return markdown(lines)


def findings(titles: dict[str, str], arms: Arms) -> list[str]:
    """A line per arm: what its intervals say."""
    lines = []
    for key in ordered(titles, arms):
        if key != PLAIN:
            found = difference(arms[key], arms[PLAIN])
            line = f"- {titles[key]}: {found.verdict}, {found:+.3f}"
            if (of_bases := difference_over_bases(arms[key], arms[PLAIN])) is not None:
                line += f"; over base models {of_bases.verdict}, {of_bases:+.3f}"
            lines.append(f"{line}.")
    return lines


def comparisons_table(titles: dict[str, str], arms: Arms) -> str:
    """The arms against their controls."""
    columns = ENDPOINTS[:3]
    lines = [["arm", "less", *(name for name, _ in columns)]]
    for key, other in COMPARED:
        cells = [f"{difference(arms[key], arms[other], name):+.3f}" for _, name in columns]
        lines.append([titles[key], titles[other], *cells])
    return markdown(lines)


def bases_table(titles: dict[str, str], arms: Arms) -> str:
    """Mean difference in late accuracy to plain, by base model and over base models."""
    bases = sorted({base for base, _ in arms[PLAIN]})
    lines = [["", *(f"base {base}" for base in bases), "over base models"]]
    for key in ordered(titles, arms):
        if key == PLAIN:
            continue
        means = base_means(arms[key], arms[PLAIN])
        cells = [f"{means[b][0] - means[b][1]:+.3f}" if b in means else "" for b in bases]
        of_bases = difference_over_bases(arms[key], arms[PLAIN])
        interval = "" if of_bases is None else f"{of_bases:+.3f}"
        lines.append([titles[key], *cells, interval])
    return markdown(lines)


def means_table(titles: dict[str, str], arms: Arms, columns: Sequence[tuple[str, str]]) -> str:
    """Mean and deviation of endpoints.

    Args:
        titles: of the arms, in order.
        arms: their runs.
        columns: title and key of each endpoint.
    """
    lines = [["", *(name for name, _ in columns)]]
    for key in ordered(titles, arms):
        cells = []
        for _, endpoint in columns:
            digits = ".3g" if endpoint.endswith("_ratio") and "log" not in endpoint else ".3f"
            cells.append(mean_and_deviation(values(arms[key], endpoint), digits))
        lines.append([titles[key], *cells])
    return markdown(lines)


def correlated_runs(arms: Arms) -> list[Runs]:
    """The runs that correlations are over: those of pairs that every arm has. Base models differ as
    much as arms, so means over different ones would not be those of the arms."""
    return _common([*arms.values()])


def correlations_table(arms: Arms) -> str:
    """Pearson's coefficient of each score with late accuracy; empty where there is none."""
    lines = [["", "over all", "between arms", "within arms"]]
    common = correlated_runs(arms)
    late = [values(runs, "late_accuracy") for runs in common]
    for name, endpoint in CORRELATED:
        scores = [values(runs, endpoint) for runs in common]
        cells = ("" if math.isnan(r) else f"{r:.2f}" for r in correlations(scores, late))
        lines.append([name, *cells])
    return markdown(lines)


def correlations(scores: list[list[float]], late: list[list[float]]) -> tuple[float, float, float]:
    """Pearson's coefficient over all runs, of the means of the arms, and of the runs less these
    means; NaN where the score or the accuracy is constant.

    Args:
        scores, late: a list per arm, with a value per run.
    """

    def flat(arms: list[list[float]], centered: bool) -> list[float]:
        return [x - statistics.mean(arm) * centered for arm in arms for x in arm]

    means = [[statistics.mean(arm) for arm in arms] for arms in (scores, late)]
    return (
        _pearson(flat(scores, False), flat(late, False)),
        _pearson(*means),
        _pearson(flat(scores, True), flat(late, True)),
    )


def _pearson(x: list[float], y: list[float]) -> float:
    if min(len({*x}), len({*y})) < 2:
        return math.nan
    return statistics.correlation(x, y)


def doses_table(runs: Runs) -> str:
    """The training-free interventions on the plain models."""
    doses = [runs[pair]["doses"] for pair in sorted(runs)]
    unchanged = [run[DOSES.index(NONE)]["late_accuracy"] for run in doses]
    lines = [["", "dose", "late accuracy", "difference", *(name for name, _ in ENDPOINTS[1:])]]
    for number, dose in enumerate(DOSES):
        found = {name: [run[number][name] for run in doses] for _, name in ENDPOINTS}
        cells = [mean_and_deviation(found[name]) for _, name in ENDPOINTS]
        compared = ""
        if dose is not NONE:
            compared = f"{paired_difference(found['late_accuracy'], unchanged):+.3f}"
        lines.append([dose.group, dose.value, cells[0], compared, *cells[1:]])
    return markdown(lines)
