"""The page of the hint study: prediction, what came out, tables, picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from ..evaluate.provenance import processor, short_version
from ..tables import markdown, mean_and_deviation
from .hint_arms import ARMS, CEILING, QUERIES, HintArm, arm_key
from .hint_study_parts import Results, Scores
from .paired import MANY, paired_difference
from .world import HINT_PLACES

PREDICTION = (
    "Suppression helps only where the hint stands in the system turn: there it raises the accuracy"
    " with wrong hints over no AGTO, and where the hint stands in the user turn it does not, as no"
    " key that it lowers belongs to a hint."
)
PRIMARY = "wrong"
COLUMNS = (
    ("no hint", "absent"),
    ("wrong hint", "wrong"),
    ("right hint", "right"),
    ("follows wrong hint", "follows"),
    ("hint cut off", "cut_off"),
)
MASSES = tuple((name, f"{name}_mass") for name in ("hint", "visual", "system", "text"))
COMPARED = (*COLUMNS[:3], ("mass on hint", "hint_mass"), ("mass on image", "visual_mass"))


def write_page(
    out: Path, results: Results, base: dict[str, Scores], setup: str, command: str
) -> str:
    """Writes ``hint-study.md`` and its picture in ``img/``; returns the tables of the arms.

    Args:
        out: the folder.
        results: finished runs; an arm may have none yet.
        base: {place: scores of the base model}.
        setup: Markdown that says what was trained and tested.
        command: that made the results.
    """
    pictures = out / "img"
    pictures.mkdir(parents=True, exist_ok=True)
    tables = [arms_table(place, results, base[place], COLUMNS) for place in HINT_PLACES]
    page = [
        "# Does it matter to AGTO where a shortcut stands?",
        "",
        _size(results),
        f"`{command}` at commit {short_version()}, {processor()}.",
        "",
        "## Prediction",
        "",
        f"Written before any arm with AGTO was trained. {PREDICTION}",
        "",
        setup,
        "",
        "## What came out",
        "",
        *verdicts(results),
        "",
        "Difference in accuracy with wrong hints between suppression and no AGTO, by the turn of"
        f" the hint, paired by seed, with a 95 % t interval. {MANY}",
        "",
        prediction_table(results),
        "",
        "![Accuracy with wrong hints of every arm, by the turn of the"
        " hint](img/hint-study-arms.png)",
        "",
    ]
    for place, table in zip(HINT_PLACES, tables, strict=True):
        page += [
            f"## Hints in the {place} turn",
            "",
            "Accuracy on the same questions with no hint, with a wrong one and with the right one;"
            " how frequently a wrong hint is the answer; accuracy with wrong hints when no query"
            " sees the hint's keys (bias -1e4). Mean over seeds, with the standard deviation where"
            " there are two or more.",
            "",
            table,
            "",
            "Attention on each key type where the digit is predicted, with wrong hints:",
            "",
            arms_table(place, results, base[place], MASSES),
            "",
            "Difference to no AGTO with hints in the same turn, paired by seed, with a 95 % t"
            " interval:",
            "",
            differences_table(place, results),
            "",
        ]
    (out / "hint-study.md").write_text("\n".join(page).rstrip("\n") + "\n")
    plot_arms(pictures / "hint-study-arms.png", results)
    return "\n\n".join(tables)


def _size(results: Results) -> str:
    """How many runs there are, of how many."""
    counts = {key: len(runs) for key, runs in results.items()}
    least, most = min(counts.values()), max(counts.values())
    each = f"{least}" if least == most else f"{least} to {most}"
    size = f"{sum(counts.values())} runs: {each} of each of {len(counts)} arms, one base model."
    return size + " An arm with one run has no interval: it shows what happened once." * (least < 2)


def _arms(place: str) -> list[HintArm]:
    """The arms of a place, after the ceiling."""
    return [CEILING, *(arm for arm in ARMS if arm.place == place)]


def _values(results: Results, key: str, place: str, endpoint: str) -> dict[int, float]:
    return {seed: scores[place][endpoint] for seed, scores in results[key].items()}


def arms_table(
    place: str, results: Results, base: Scores, columns: Sequence[tuple[str, str]]
) -> str:
    """Means of endpoints: the base model, the ceiling, and the arms with hints in a place.

    Args:
        place: of the hints, in the rows and in the tests.
        results: finished runs.
        base: scores of the base model.
        columns: title and key of each endpoint.
    """
    lines = [["", "runs", *(name for name, _ in columns)]]
    lines.append(["base model", "", *(f"{base[endpoint]:.3f}" for _, endpoint in columns)])
    for arm in _arms(place):
        cells = [
            _mean([*_values(results, arm.key, place, endpoint).values()]) for _, endpoint in columns
        ]
        lines.append([arm.title, str(len(results[arm.key])), *cells])
    return markdown(lines)


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    return mean_and_deviation(values) if len(values) > 1 else f"{values[0]:.3f}"


def paired(values: dict[int, float], reference: dict[int, float]) -> list[float]:
    """Differences over the seeds that both have."""
    return [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]


def _difference(differences: list[float]) -> str:
    """A cell: the mean and its interval, or the one difference there is."""
    if len(differences) < 2:
        return "".join(f"{x:+.3f}" for x in differences)
    return f"{paired_difference(differences, [0.0] * len(differences)):+.3f}"


def _to_none(results: Results, place: str, key: str, endpoint: str) -> list[float]:
    values, reference = (_values(results, k, place, endpoint) for k in (key, arm_key(place)))
    return paired(values, reference)


def differences_table(place: str, results: Results) -> str:
    """Every arm's paired differences to no AGTO, and those of the ceiling."""
    lines = [["", *(name for name, _ in COMPARED)]]
    for arm in _arms(place):
        if arm.key != arm_key(place):
            cells = [_difference(_to_none(results, place, arm.key, end)) for _, end in COMPARED]
            lines.append([arm.title, *cells])
    return markdown(lines)


def _by_place(results: Results, term: str, queries: str) -> dict[str, dict[int, float]]:
    """{place: {seed: difference in the primary endpoint to no AGTO}}"""
    found = {}
    for place in HINT_PLACES:
        arm, none = (
            _values(results, key, place, PRIMARY)
            for key in (arm_key(place, term, queries), arm_key(place))
        )
        found[place] = {seed: arm[seed] - none[seed] for seed in sorted(arm.keys() & none.keys())}
    return found


def prediction_table(results: Results) -> str:
    """The differences that the prediction is about."""
    lines = [["", *(f"{place} turn" for place in HINT_PLACES), "system less user"]]
    for term in ("suppress", "both"):
        for queries in QUERIES:
            by_place = _by_place(results, term, queries)
            cells = [_difference([*by_place[place].values()]) for place in HINT_PLACES]
            between = _difference(paired(by_place["system"], by_place["user"]))
            lines.append([f"{term}, {queries} queries", *cells, between])
    return markdown(lines)


def verdicts(results: Results) -> list[str]:
    """A line for each kind of queries: whether the prediction came out for suppression alone."""
    lines = []
    for queries in QUERIES:
        by_place = _by_place(results, "suppress", queries)
        lines.append(f"- Suppression, {queries} queries: {_verdict(**by_place)}.")
    return lines


def _verdict(system: dict[int, float], user: dict[int, float]) -> str:
    """What the differences to no AGTO say, with hints in the system turn and in the user turn.

    That one interval holds zero and the other does not is no difference between the turns, so their
    difference has an interval of its own.
    """
    between = paired(system, user)
    if min(len(system), len(user), len(between)) < 2:
        return "not decided, because an interval needs two runs of each arm"
    of_system, of_user, of_both = (
        paired_difference(x, [0.0] * len(x))
        for x in ([*system.values()], [*user.values()], between)
    )
    if of_user.low > 0:
        return "the prediction did not come out: better with the hint in the user turn"
    if of_system.high < 0:
        return "the prediction did not come out: worse with the hint in the system turn"
    if of_system.low <= 0:
        return (
            "the prediction is not shown: with the hint in the system turn the interval holds zero"
        )
    better = (
        "better with the hint in the system turn, and not shown to be better with it in the user"
        " turn"
    )
    if of_both.low > 0:
        return f"the prediction came out: {better}; the difference between the turns is shown too"
    return (
        f"the prediction is not shown: {better}, but the interval of the difference between the"
        " turns holds zero"
    )


def plot_arms(path: Path, results: Results) -> None:
    """Accuracy with wrong hints: a dot per run, a bar for the mean, a panel per place."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, len(HINT_PLACES), sharey=True)
    for axis, place in zip(axes, HINT_PLACES, strict=True):
        arms = _arms(place)
        for row, arm in enumerate(arms):
            values = [*_values(results, arm.key, place, PRIMARY).values()]
            if values:
                axis.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.35)
                axis.plot(statistics.mean(values), row, "|", color="black", markersize=16)
        axis.set_yticks(range(len(arms)), [arm.title for arm in arms], fontsize=8)
        axis.set_title(f"hint in the {place} turn", fontsize=10)
        axis.set_xlabel("accuracy with wrong hints")
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)
