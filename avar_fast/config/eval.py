"""The section ``eval``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import named_values, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation during training, on rows that are not trained on."""

    path: str | None = None
    """The rows, in any form that ``data.path`` takes. Null evaluates nothing."""
    split: str = "test"
    """Split to take of a data set that has several."""
    limit: int | None = None
    """Take only this many rows, from the first on. Null takes all."""
    every: int = 100
    """Steps between evaluations. The end of the run is always evaluated."""
    batch_size: int = 4
    """Rows in one forward on one rank."""
    max_new_tokens: int = 1024
    """Largest number of tokens in a completion. Completions are generated greedily, and accuracy is
    computed from them. 0 generates none."""
    checker: Literal["accuracy", "exact", "multiple_choice", "numeric"] = "accuracy"
    """The rule that decides whether an answer is right; ``grpo.rewards`` has rules of the same
    names."""

    def __post_init__(self) -> None:
        require_positive(named_values("eval", self, "every", "batch_size", "limit"))
        require_not_negative(named_values("eval", self, "max_new_tokens"))
