"""Reads accuracy and score of a model from an evaluation's JSON. In the studies, only this module
knows its format."""

import json
from dataclasses import dataclass
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
    return Point(name, fmean(scores), {form: fmean(values) for form, values in vas.items()})


def _keys(result: Any) -> str:
    if not isinstance(result, dict):
        return f"a {type(result).__name__}"
    return ", ".join(list(result)[:12]) or "nothing"
