"""Reads accuracy and score of a model from an evaluation's JSON. In the studies, only this module
knows its format."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ..vas.score import FORMS


@dataclass(frozen=True)
class Point:
    """Accuracy and score of one model or checkpoint."""

    name: str
    accuracy: float
    """Mean score of the benchmarks, from 0 to 1."""
    vas: dict[str, float]
    """{form: VAS}, means over the benchmarks."""
    questions: dict[str, str | None] = field(default_factory=dict)
    """{benchmark: digest of its questions}; None where the result has none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the evaluation, and the limits of images."""


def read_point(name: str, path: Path) -> Point:
    """Reads a point from the result file of an evaluation.

    Raises:
        ValueError: the file is not JSON, or accuracy or score is missing.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"a result must be an existing file; {path} is not.")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be the JSON of an evaluation; {error}.") from None
    return point_of(name, result, str(path))


def point_of(name: str, result: Any, where: str) -> Point:
    """Makes a point from a parsed result: means over its benchmarks.

    Raises:
        ValueError: accuracy or score is missing.
    """
    benchmarks = result.get("benchmarks") if isinstance(result, dict) else None
    if not isinstance(benchmarks, dict) or not benchmarks:
        raise ValueError(
            f"{where} must hold benchmarks, as avar_fast.evaluate writes them; it holds"
            f" {_keys(result)}. Evaluate the model with python -m avar_fast.evaluate."
        )
    scores: list[float] = []
    vas: dict[str, list[float]] = {form: [] for form in FORMS}
    for benchmark, summary in benchmarks.items():
        scores_by_form = summary.get("vas") or {}
        missing = [form for form in FORMS if not isinstance(scores_by_form.get(form), int | float)]
        if missing or not isinstance(summary.get("score"), int | float):
            raise ValueError(
                f"{where} must hold the score of {benchmark} and its VAS as {', '.join(FORMS)};"
                f" {', '.join(missing) or 'score'} is missing. Evaluate on rows with images,"
                " without --no-vas."
            )
        scores.append(summary["score"])
        for form in FORMS:
            vas[form].append(scores_by_form[form])
    return Point(
        name,
        fmean(scores),
        {form: fmean(values) for form, values in vas.items()},
        {benchmark: summary.get("digest") for benchmark, summary in benchmarks.items()},
        (result.get("settings") or {}) | {k: result[k] for k in ("pixels",) if k in result},
    )


def require_same_questions(points: Sequence[Point]) -> None:
    """Raises ValueError if points are of other benchmarks than the first, or of other questions:
    models of different tests have no common order."""
    first = points[0]
    for point in points[1:]:
        names = (", ".join(p.questions) for p in (first, point))
        if set(point.questions) != set(first.questions):
            ours, theirs = names
            raise ValueError(
                f"results must be of the same benchmarks to be correlated; {first.name} has {ours},"
                f" {point.name} {theirs}. Evaluate all models on the same."
            )
        for benchmark, digest in point.questions.items():
            expected = first.questions[benchmark]
            if None not in (expected, digest) and digest != expected:
                raise ValueError(
                    f"results must answer the same questions to be correlated; those of {benchmark}"
                    f" differ between {first.name} and {point.name}. Evaluate all models on the"
                    " same rows."
                )


def _keys(result: Any) -> str:
    if not isinstance(result, dict):
        return f"a {type(result).__name__}"
    return ", ".join(list(result)[:12]) or "nothing"
