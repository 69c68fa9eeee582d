"""Our rules for answers as reward functions of TRL."""

import atexit
import logging
from collections.abc import Callable
from typing import Any

from ...rewards import RULES, Completions, Rewards

_LOG = logging.getLogger(__name__)


def rule_reward(rule: str, column: str = "answer") -> Callable[..., list[float | None]]:
    """Makes one of our rules a reward function of TRL, for ``reward_funcs`` and as the gate of
    ``vars_reward``.

    What may hang, such as computer algebra, runs in processes that are killed after a time limit.
    Such failures are logged and count as 0.

    Args:
        rule: accuracy, exact, multiple_choice, numeric or format (docs/answers.md).
        column: column of the data set with the reference or references.

    Returns:
        A reward function: 1 for a right completion, else 0; None where the rule does not apply.

    Raises:
        ValueError: there is no such rule; by the returned function, if the data set lacks the
            column.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}.")
    rewards = Rewards((rule,))
    atexit.register(rewards.close)

    def score(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **columns: Any
    ) -> list[float | None]:
        if RULES[rule].needs_answer and column not in columns:
            raise ValueError(
                f"the data set must have the column {column!r} for the rule {rule}; it has"
                f" {', '.join(columns)}. Name the column in rule_reward(..., column=)."
            )
        scored = rewards.score(
            Completions(
                prompts,
                [_text(completion) for completion in completions],
                completion_ids,
                {"answer": columns.get(column, [None] * len(completions))},
                [f"completion {i}" for i in range(len(completions))],
            )
        )
        for problem in scored.problems:
            if problem.count and not problem.what.startswith("gave nothing"):
                _LOG.warning("%s; counted as 0", problem)
        return scored.values[rule]  # pyright: ignore[reportReturnType]

    score.__name__ = rule
    return score


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]
