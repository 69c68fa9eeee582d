"""Two runs question by question: differences with paired bootstrap intervals."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..bootstrap import Bootstrap
from ..tables import markdown
from ..vas import FORMS
from .benchmark import ByQuestion
from .benchmarks import BENCHMARKS, PARTS
from .prediction import Prediction
from .result import Result

BATCH = 256  # resamples at once
OVERALL = "overall"
PER_CENT = np.array([100.0, 1.0])  # of numerators and denominators


@dataclass(frozen=True)
class Difference:
    """B less A, of one quantity."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    """Percentile interval of the difference over resampled questions."""


@dataclass(frozen=True)
class ResultComparison:
    """Of one benchmark."""

    num: int
    """Questions."""
    only_a: int
    """Right in A alone."""
    only_b: int
    score: Difference
    """In per cent."""
    vas: dict[str, Difference]
    """By form; empty where a run has none."""


Draws = list[np.ndarray]
"""How often each resample drew each cluster: (resamples, clusters), some at a time."""


def compare(a: Result, b: Result, bootstrap: Bootstrap, shared: bool = False) -> dict[str, Any]:
    """All benchmarks that both runs have, and the mean over them.

    What is resampled is questions; of HallusionBench sets of questions, as its numbers are of
    groups. The mean over benchmarks resamples each benchmark by itself.

    Args:
        a, b: of the same questions.
        bootstrap: confidence, resamples, seed.
        shared: compare the questions that both have where they differ.

    Raises:
        ValueError: no benchmark in common, or other questions.
    """
    names = [name for name in a.benchmarks if name in b.benchmarks]
    if not names:
        raise ValueError(
            f"two results must have a benchmark in common; {a.path} has {', '.join(a.benchmarks)},"
            f" {b.path} has {', '.join(b.benchmarks)}."
        )
    comparisons: dict[str, ResultComparison] = {}
    spread: dict[str, np.ndarray] = {}
    for place, name in enumerate(names):
        _require_same_judge(name, a, b)
        pairs = _pairs(name, a, b, shared)
        rng = np.random.default_rng([bootstrap.seed, place])
        comparisons[name], spread[name] = _compared(name, pairs, bootstrap, rng)
    found: dict[str, Any] = {
        "a": a.path,
        "b": b.path,
        "differing": _differing(a, b),
        "bootstrap": asdict(bootstrap),
        "benchmarks": {name: asdict(one) for name, one in comparisons.items()},
    }
    columns = _columns(names)
    if len(columns) > 1:
        sides = [
            fmean(fmean(getattr(comparisons[part].score, side) for part in c) for c in columns)
            for side in ("a", "b")
        ]
        differences = np.mean([np.mean([spread[p] for p in c], axis=0) for c in columns], axis=0)
        found[OVERALL] = asdict(_difference(sides[0], sides[1], differences, bootstrap))
    return found


def text_of(found: dict[str, Any]) -> str:
    """The tables that are printed."""
    lines = [["benchmark", "A", "B", "B - A", "interval", "only A right", "only B right", "n"]]
    vas = [["benchmark", "VAS", "A", "B", "B - A", "interval"]]
    for name, one in found["benchmarks"].items():
        counts = [str(one[key]) for key in ("only_a", "only_b", "num")]
        lines.append([name, *_cells(one["score"], ".1f"), *counts])
        vas += [
            [name, form.replace("_", " "), *_cells(difference, ".4g")]
            for form, difference in one["vas"].items()
        ]
    if OVERALL in found:
        lines.append(["mean", *_cells(found[OVERALL], ".1f"), "", "", ""])
    bootstrap = found["bootstrap"]
    differing = "".join(
        f"\n{name}: A {pair[0]}, B {pair[1]}" for name, pair in found["differing"].items()
    )
    said = (
        f"A: {found['a']}\nB: {found['b']}{differing}\n"
        f"{100 * bootstrap['confidence']:g} % percentile intervals of paired differences,"
        f" {bootstrap['resamples']} resamples of the questions, seed {bootstrap['seed']}."
    )
    return "\n\n".join([markdown(lines), *([markdown(vas)] if len(vas) > 1 else []), said])


def _differing(a: Result, b: Result) -> dict[str, list[Any]]:
    """{setting: [of A, of B]} where the runs' settings differ."""
    sides = [result.head.get("settings", {}) for result in (a, b)]
    pairs = {name: [side.get(name) for side in sides] for name in {**sides[0], **sides[1]}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _cells(one: dict[str, float], form: str) -> list[str]:
    interval = f"{one['low']:+{form}} .. {one['high']:+{form}}"
    return [f"{one['a']:{form}}", f"{one['b']:{form}}", f"{one['difference']:+{form}}", interval]


def _require_same_judge(name: str, a: Result, b: Result) -> None:
    """A score with a judge and one without, or with another, differ by the judge as well."""
    judges = [
        "the rule alone" if judge is None else f"{judge['model']} {json.dumps(judge['body'])}"
        for judge in (a.benchmarks[name].judge, b.benchmarks[name].judge)
    ]
    if judges[0] != judges[1]:
        raise ValueError(
            f"two results must be judged alike; {name} is judged in {a.path} by {judges[0]}, in"
            f" {b.path} by {judges[1]}. Evaluate one of them again."
        )


def _pairs(name: str, a: Result, b: Result, shared: bool) -> list[tuple[Prediction, Prediction]]:
    sides = [{p.id: p for p in r.predictions if p.benchmark == name} for r in (a, b)]
    common = [id for id in sides[0] if id in sides[1]]
    if not shared and not len(common) == len(sides[0]) == len(sides[1]):
        raise ValueError(
            f"two results must answer the same questions of {name}; A has {len(sides[0])}, B"
            f" {len(sides[1])}, {len(common)} of them in common. Use --shared to compare those."
        )
    other = [id for id in common if sides[0][id].answer != sides[1][id].answer]
    if other or not common:
        what = f"question {other[0]} has another answer" if other else "none is in common"
        raise ValueError(f"two results must be of the same data; in {name} {what}.")
    return [(sides[0][id], sides[1][id]) for id in common]


def _compared(
    name: str, pairs: Sequence[tuple[Prediction, Prediction]], bootstrap: Bootstrap,
    rng: np.random.Generator,
) -> tuple[ResultComparison, np.ndarray]:  # fmt: skip
    """The comparison, and the score's difference in every resample."""
    benchmark = BENCHMARKS.get(name, ByQuestion())
    clusters: dict[str, list[tuple[Prediction, Prediction]]] = {}
    for pair in pairs:
        clusters.setdefault(benchmark.cluster(pair[0]), []).append(pair)
    groups = list(clusters.values())
    scores = [
        np.array([benchmark.tally([pair[side] for pair in group]) for group in groups], float)
        * PER_CENT
        for side in (0, 1)
    ]
    draws = _draws(len(groups), bootstrap.resamples, rng)
    score, differences = _estimate(scores, draws, bootstrap)
    vas = {}
    if all(any(p[side].vas for p in pairs) for side in (0, 1)):
        for form in FORMS:
            sums = [
                np.array([_vas_sums([pair[side] for pair in group], form) for group in groups])
                for side in (0, 1)
            ]
            vas[form], _ = _estimate(sums, draws, bootstrap)
    only = [sum(x.right and not y.right for x, y in some)
            for some in (pairs, [(y, x) for x, y in pairs])]  # fmt: skip
    return ResultComparison(len(pairs), only[0], only[1], score, vas), differences


def _vas_sums(predictions: Sequence[Prediction], form: str) -> list[tuple[float, float]]:
    having = [p for p in predictions if p.vas]
    total = sum(p.vas[form] * p.num_queries for p in having if p.vas)
    return [(total, float(sum(p.num_queries for p in having)))]


def _draws(num: int, resamples: int, rng: np.random.Generator) -> Draws:
    return [
        rng.multinomial(num, np.full(num, 1 / num), size=min(BATCH, resamples - start))
        for start in range(0, resamples, BATCH)
    ]


def _estimate(
    sides: Sequence[np.ndarray], draws: Draws, bootstrap: Bootstrap
) -> tuple[Difference, np.ndarray]:
    """Args:
    sides: of A and B, (clusters, ratios, 2): numerators and denominators; the quantity is the
        mean over ratios of sum over sum.
    """

    def quantity(weights: np.ndarray, parts: np.ndarray) -> np.ndarray:
        sums = np.tensordot(weights, parts, axes=1)  # (resamples, ratios, 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (sums[..., 0] / sums[..., 1]).mean(axis=-1)

    whole = np.ones((1, len(sides[0])))
    a, b = (float(quantity(whole, parts)[0]) for parts in sides)
    drawn = [np.concatenate([quantity(w, parts) for w in draws]) for parts in sides]
    differences = drawn[1] - drawn[0]
    return _difference(a, b, differences, bootstrap), differences


def _difference(a: float, b: float, differences: np.ndarray, bootstrap: Bootstrap) -> Difference:
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.nanquantile(differences, [tail, 1 - tail])
    return Difference(float(a), float(b), float(b - a), float(low), float(high))


def _columns(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Benchmarks as the tasks they are the mean of; a part whose others are missing stands for
    itself."""
    whole = [parts for parts in PARTS.values() if all(part in names for part in parts)]
    in_whole = {part for parts in whole for part in parts}
    return whole + [(name,) for name in names if name not in in_whole]
