"""Estimates how much memory a recipe needs, from the model's configuration alone."""

from types import ModuleType

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from ..config import Recipe
from ..models import family_at
from .parameters import choose_trainable
from .recurrent import require_own_rows


def memory_plan(recipe: Recipe, world_size: int) -> str:
    """A text table of the memory per rank, in GiB: weights, gradients and AdamW's states under the
    recipe's ZeRO stage, and in stage grpo the key-value caches of sampling.

    Activations are not counted, as they depend on the rows; the largest number of tokens in a
    forward of stage grpo is given in their place.
    """
    family, config = family_at(recipe.model.path)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
        choose_trainable(model, recipe)
    require_own_rows(recipe, model)
    num_params = sum(p.numel() for p in model.parameters())
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    engine, width = recipe.engine, 4 if recipe.model.dtype == "float32" else 2
    zero_stage = engine.zero_stage
    sizes = {
        "weights": num_params * width / (world_size if zero_stage >= 3 else 1),
        "gradients": num_trained * width / (world_size if zero_stage >= 2 else 1),
        "optimizer": num_trained
        * (8 if width == 4 else 12)
        / (world_size if zero_stage >= 1 else 1),
    }
    if recipe.stage == "grpo" and recipe.rollout.engine == "model":
        sizes["KV caches"] = cache_bytes(recipe, family, model)
    on_host = {"weights": engine.offload_params, "optimizer": engine.offload_optimizer}
    lines = [
        f"memory plan per rank, {num_params / 1e6:.2f} M parameters, {num_trained / 1e6:.2f} M"
        f" trained, ZeRO-{zero_stage}, {world_size} ranks:"
    ]
    for name, size in sizes.items():
        where = " in host memory" if on_host.get(name) else ""
        lines.append(f"  {name:<10} {size / 2**30:8.3f} GiB{where}")
    device = sum(size for name, size in sizes.items() if not on_host.get(name))
    lines.append(f"  {'sum':<10} {device / 2**30:8.3f} GiB on the device, activations not counted")
    if recipe.stage == "grpo":
        lines.append(f"  a forward has up to {_tokens_at_once(recipe)} tokens")
    return "\n".join(lines)


def cache_bytes(recipe: Recipe, family: ModuleType, model: nn.Module) -> int:
    """Bytes of the keys and values of all prompts that a rank samples from at the same time: each
    prompt once, and each of its completions; and of the recurrent layers' states, which each
    completion has."""
    grpo, width = recipe.grpo, 4 if recipe.model.dtype == "float32" else 2
    values = sum(
        attention.k_proj.out_features + attention.v_proj.out_features
        for attention in family.text_attention(model).values()
    )
    tokens = recipe.data.max_length + grpo.group_size * grpo.max_new_tokens
    states = sum(
        width * rule.conv_dim * rule.conv_kernel_size
        + 4 * rule.num_v_heads * rule.head_k_dim * rule.head_v_dim
        for rule in family.recurrent_layers(model).values()
    )
    return grpo.prompts_per_generation * (tokens * values * width + grpo.group_size * states)


def _tokens_at_once(recipe: Recipe) -> int:
    """Most tokens of a forward in scoring and update."""
    if recipe.micro_batch_capacity is not None:
        return recipe.micro_batch_capacity
    return recipe.train.micro_batch_size * recipe.longest_response
