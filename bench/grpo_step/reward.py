"""The reward of both trainers, which does not depend on what the model has learnt."""

from typing import Any


def residue(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
    """A number from 0 to 1, which differs within a group; half of them count as right."""
    return [sum(ids) % 97 / 96 for ids in completion_ids]
