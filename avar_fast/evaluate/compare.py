"""Compares two runs question by question: differences with paired bootstrap intervals."""

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
from .settings import differing_settings

BATCH = 256  # resamples that are computed together
OVERALL = "overall"
PERCENT = np.array([100.0, 1.0])  # factors of numerator and denominator


@dataclass(frozen=True)
class Difference:
    """The difference of one quantity between two runs, A and B."""

    a: float
    b: float
    difference: float
    """B minus A."""
    low: float
    """Lower end of the interval of the difference: percentiles over resampled questions."""
    high: float
    """Upper end of the interval."""


@dataclass(frozen=True)
class ResultComparison:
    """The comparison of two runs on one benchmark."""

    num: int
    """Number of questions compared."""
    only_a: int
    """Number of questions that only A answers right."""
    only_b: int
    """Number of questions that only B answers right."""
    score: Difference
    """Difference of the benchmark's score, in percent."""
    vas: dict[str, Difference]
    """{form: difference of VAS}; empty if a run has no VAS."""


Draws = list[np.ndarray]
"""How often each resample drew each cluster: arrays of (resamples, clusters), in batches."""


def compare(a: Result, b: Result, bootstrap: Bootstrap, shared: bool = False) -> dict[str, Any]:
    """Compares two runs on all benchmarks that both have, and on the mean over them.

    The bootstrap resamples questions. For HallusionBench it resamples sets of questions, because
    its score is computed over groups. For the mean over benchmarks, each benchmark is resampled
    independently.

    Args:
        a, b: results with the same questions.
        bootstrap: confidence, number of resamples and seed.
        shared: if the results differ in their questions, compare those that both have.

    Returns:
        The comparison as a JSON object.

    Raises:
        ValueError: the runs have no benchmark in common, or their questions or judges differ.
    """
    names = [name for name in a.benchmarks if name in b.benchmarks]
    if not names:
        raise ValueError(
            f"two results must have a benchmark in common; {a.path} has {', '.join(a.benchmarks)},"
            f" {b.path} has {', '.join(b.benchmarks)}."
        )
    comparisons: dict[str, ResultComparison] = {}
    resampled: dict[str, np.ndarray] = {}
    for number, name in enumerate(names):
        _require_same_judge(name, a, b)
        pairs = _pairs(name, a, b, shared)
        rng = np.random.default_rng([bootstrap.seed, number])
        comparisons[name], resampled[name] = _compare_pairs(name, pairs, bootstrap, rng)
    comparison: dict[str, Any] = {
        "a": a.path,
        "b": b.path,
        "differing": _differing(a, b),
        "bootstrap": asdict(bootstrap),
        "benchmarks": {name: asdict(entry) for name, entry in comparisons.items()},
    }
    columns = _columns(names)
    if len(columns) > 1:
        sides = [
            fmean(fmean(getattr(comparisons[part].score, side) for part in c) for c in columns)
            for side in ("a", "b")
        ]
        differences = np.mean([np.mean([resampled[p] for p in c], axis=0) for c in columns], axis=0)
        comparison[OVERALL] = asdict(_difference(sides[0], sides[1], differences, bootstrap))
    return comparison


def comparison_text(comparison: dict[str, Any]) -> str:
    """Formats the return value of ``compare`` as tables."""
    lines = [["benchmark", "A", "B", "B - A", "interval", "only A right", "only B right", "n"]]
    vas = [["benchmark", "VAS", "A", "B", "B - A", "interval"]]
    for name, entry in comparison["benchmarks"].items():
        counts = [str(entry[key]) for key in ("only_a", "only_b", "num")]
        lines.append([name, *_cells(entry["score"], ".1f"), *counts])
        vas += [
            [name, form.replace("_", " "), *_cells(difference, ".4g")]
            for form, difference in entry["vas"].items()
        ]
    if OVERALL in comparison:
        lines.append(["mean", *_cells(comparison[OVERALL], ".1f"), "", "", ""])
    bootstrap = comparison["bootstrap"]
    differing = "".join(
        f"\n{name}: A {pair[0]}, B {pair[1]}" for name, pair in comparison["differing"].items()
    )
    note = (
        f"A: {comparison['a']}\nB: {comparison['b']}{differing}\n"
        f"{100 * bootstrap['confidence']:g} % percentile intervals of paired differences,"
        f" {bootstrap['resamples']} resamples of the questions, seed {bootstrap['seed']}."
    )
    return "\n\n".join([markdown(lines), *([markdown(vas)] if len(vas) > 1 else []), note])


def _differing(a: Result, b: Result) -> dict[str, list[Any]]:
    """{setting: [value in A, value in B]} of the settings that differ, and of the limits of images
    that both results name."""
    sides = [dict(result.head.get("settings", {})) for result in (a, b)]
    if "pixels" in a.head and "pixels" in b.head:
        for side, result in zip(sides, (a, b), strict=True):
            side["pixels"] = result.head["pixels"]
    return differing_settings(sides)


def _cells(difference: dict[str, float], form: str) -> list[str]:
    interval = f"{difference['low']:+{form}} .. {difference['high']:+{form}}"
    return [
        f"{difference['a']:{form}}",
        f"{difference['b']:{form}}",
        f"{difference['difference']:+{form}}",
        interval,
    ]


def _require_same_judge(name: str, a: Result, b: Result) -> None:
    """Raises ValueError if the judges differ: the scores would then differ by the judge as well."""
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
    changed = [id for id in common if sides[0][id].answer != sides[1][id].answer]
    if changed or not common:
        reason = f"question {changed[0]} has another answer" if changed else "none is in common"
        raise ValueError(f"two results must be of the same data; in {name} {reason}.")
    return [(sides[0][id], sides[1][id]) for id in common]


def _compare_pairs(
    name: str, pairs: Sequence[tuple[Prediction, Prediction]], bootstrap: Bootstrap,
    rng: np.random.Generator,
) -> tuple[ResultComparison, np.ndarray]:  # fmt: skip
    """Compares the pairs of one benchmark.

    Returns:
        The comparison, and the (resamples,) differences of the score.
    """
    benchmark = BENCHMARKS.get(name, ByQuestion())
    clusters: dict[str, list[tuple[Prediction, Prediction]]] = {}
    for pair in pairs:
        clusters.setdefault(benchmark.cluster(pair[0]), []).append(pair)
    groups = list(clusters.values())
    scores = [
        np.array([benchmark.tally([pair[side] for pair in group]) for group in groups], float)
        * PERCENT
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
    only_a = sum(a.right and not b.right for a, b in pairs)
    only_b = sum(b.right and not a.right for a, b in pairs)
    return ResultComparison(len(pairs), only_a, only_b, score, vas), differences


def _vas_sums(predictions: Sequence[Prediction], form: str) -> list[tuple[float, float]]:
    measured = [p for p in predictions if p.vas]
    total = sum(p.vas[form] * p.num_queries for p in measured if p.vas)
    return [(total, float(sum(p.num_queries for p in measured)))]


def _draws(num: int, resamples: int, rng: np.random.Generator) -> Draws:
    return [
        rng.multinomial(num, np.full(num, 1 / num), size=min(BATCH, resamples - start))
        for start in range(0, resamples, BATCH)
    ]


def _estimate(
    sides: Sequence[np.ndarray], draws: Draws, bootstrap: Bootstrap
) -> tuple[Difference, np.ndarray]:
    """Estimates a quantity for A and B, and their difference.

    The quantity is the mean over ratios of (sum of numerators) / (sum of denominators).

    Args:
        sides: numerators and denominators of A and of B, each (clusters, ratios, 2).
        draws: resamples of the clusters.
        bootstrap: confidence of the interval.

    Returns:
        The difference with its interval, and the (resamples,) resampled differences.
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
    """Groups tasks into benchmarks. If not all tasks of a benchmark are present, each of its tasks
    stands alone."""
    whole = [parts for parts in PARTS.values() if all(part in names for part in parts)]
    in_whole = {part for parts in whole for part in parts}
    return whole + [(name,) for name in names if name not in in_whole]
