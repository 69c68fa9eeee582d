"""Accuracy and score of a model out of an evaluation's JSON; nothing else knows its format."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .score import FORMS


@dataclass(frozen=True)
class Point:
    """One model or checkpoint."""

    name: str
    accuracy: float
    vas: dict[str, float]
    """The score by form."""


def read_point(name: str, path: Path) -> Point:
    """The point of a file that an evaluation has written.

    Raises:
        ValueError: no JSON, or accuracy or score missing.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be the JSON of an evaluation; {error}.") from None
    return point_of(name, result, str(path))


def point_of(name: str, result: Any, where: str) -> Point:
    """The point of an evaluation's result as a dictionary."""
    accuracy = result.get("exact_match") if isinstance(result, dict) else None
    vas = result.get("vas") if isinstance(result, dict) else None
    if not isinstance(accuracy, int | float) or not isinstance(vas, dict):
        raise ValueError(
            f"{where} must hold exact_match and vas, as avar_fast.evaluation writes them; it holds"
            f" {_keys(result)}. Evaluate the model with python -m avar_fast.evaluation."
        )
    lacking = [form for form in FORMS if not isinstance(vas.get(form), int | float)]
    if lacking:
        raise ValueError(
            f"{where} must hold the score as {', '.join(FORMS)}; {', '.join(lacking)} is missing."
            " Evaluate on rows with images."
        )
    return Point(name, float(accuracy), {form: float(vas[form]) for form in FORMS})


def _keys(result: Any) -> str:
    if not isinstance(result, dict):
        return f"a {type(result).__name__}"
    return ", ".join(list(result)[:12]) or "nothing"
