"""Answered questions and their scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What a rule says of a completion."""

    parsed: str | None
    """The answer found in it; None where there is none, which is wrong."""
    right: bool


@dataclass(frozen=True)
class Prediction:
    """One answered question, as a run's JSON has it."""

    benchmark: str
    id: str
    answer: str
    completion: str
    parsed: str | None
    right: bool
    num_tokens: int
    """Of the completion, its end token not counted."""
    truncated: bool
    """It reached ``max_new_tokens``."""
    groups: dict[str, str]
    vas: dict[str, float] | None = None
    """The three forms over the question's user tokens; None without an image or without VAS."""
    num_queries: int = 0
    """User tokens that VAS is the mean of."""
    error: str | None = None
    """Why the question could not be asked; counts as wrong."""
    judge_replies: list[str] | None = None
    """What the judge said, in the order it was asked; None where it was not. ``parsed`` and
    ``right`` are then by these replies."""
    judge_error: str | None = None
    """Why the judge came to no verdict; ``parsed`` and ``right`` are then the rule's."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def accuracy(predictions: Sequence[Prediction]) -> float:
    """Share of right answers."""
    return sum(p.right for p in predictions) / len(predictions)


def scores_by_group(predictions: Sequence[Prediction]) -> dict[str, float]:
    """{"score": accuracy, "name=value": accuracy of every group}."""
    members: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        for name, value in prediction.groups.items():
            members.setdefault(f"{name}={value}", []).append(prediction)
    parts = {name: accuracy(group) for name, group in sorted(members.items())}
    return {"score": accuracy(predictions)} | parts
