"""Predictions (answered questions) and their accuracy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """How a rule scores a completion."""

    parsed: str | None
    """The answer found in the completion; None if there is none, which counts as wrong."""
    right: bool


@dataclass(frozen=True)
class Prediction:
    """One answered question, with the fields of a run's JSON."""

    benchmark: str
    id: str
    answer: str
    completion: str
    parsed: str | None
    right: bool
    num_tokens: int
    """Tokens in the completion without the end token."""
    truncated: bool
    """Whether the completion reached ``max_new_tokens``."""
    groups: dict[str, str]
    vas: dict[str, float] | None = None
    """{form: VAS over the user tokens}; None without an image or if VAS is not recorded."""
    num_queries: int = 0
    """Number of user tokens over which VAS is averaged."""
    error: str | None = None
    """Why the question could not be asked; it then counts as wrong. None if it was asked."""
    judge_replies: list[str] | None = None
    """Replies of the judge, in order; None if it was not asked. ``parsed`` and ``right`` follow
    from them unless ``judge_error`` is set."""
    judge_error: str | None = None
    """Why the judge gave no verdict. ``parsed`` and ``right`` are then the rule's."""

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
