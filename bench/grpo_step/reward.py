"""The reward of both trainers, which does not depend on what the model has learnt."""

from typing import Any


def parity(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
    """1 for completions whose ids have an odd sum."""
    return [float(sum(ids) % 2) for ids in completion_ids]
