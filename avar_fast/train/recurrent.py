"""What a recipe may not ask of a model with recurrent layers."""

from typing import Any

from torch import nn

from ..config import Recipe
from ..models import family_of


def require_own_rows(recipe: Recipe, model: nn.Module) -> None:
    """Raises ValueError if the recipe lays several samples into a row, or splits a row among ranks,
    and the model has recurrent layers, which carry a state from each token to the next."""
    if not family_of(model).recurrent_layers(model):
        return
    asked: list[tuple[str, Any, Any]] = [
        ("data.packing", recipe.data.packing, False),
        ("engine.sequence_parallel", recipe.engine.sequence_parallel, 1),
    ]
    if recipe.stage == "grpo":
        asked += [
            ("grpo.shared_prompts", recipe.grpo.shared_prompts, False),
            ("train.micro_batch_tokens", recipe.train.micro_batch_tokens, None),
        ]
    for name, value, needed in asked:
        if value != needed:
            in_yaml = "null" if needed is None else str(needed).lower()
            raise ValueError(
                f"{name} must be {in_yaml} for {type(model).__name__}, whose recurrent layers would"
                f" carry their state from one sample to the next; got {value}. Set"
                f" {name}={in_yaml}."
            )
