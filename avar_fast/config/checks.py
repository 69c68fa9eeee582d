"""Checks of range and fit of a recipe's values."""

import math
from typing import TYPE_CHECKING

from .grpo import VISUAL
from .ranges import (
    LARGEST_COUNT,
    require_not_negative,
    require_pixels,
    require_positive,
    require_within,
)

if TYPE_CHECKING:
    from .schema import Recipe


def check_recipe(recipe: "Recipe") -> None:
    """Raises ValueError for a value out of range, or values that do not fit together."""
    _check_ranges(recipe)
    recipe.grpo.check()
    recipe.rollout.check()
    if recipe.rollout.engine == "vllm_server" and recipe.data.overlong == "cut":
        raise ValueError(
            "data.overlong must be error or drop with rollout.engine=vllm_server, which is sent"
            " whole prompts; got cut."
        )
    if recipe.agto.enabled and recipe.stage != "sft":
        raise ValueError("agto.enabled works in stage sft; got stage grpo. Set agto.enabled=false.")
    if recipe.stage == "grpo" and recipe.engine.sequence_parallel != 1:
        raise ValueError(
            "engine.sequence_parallel must be 1 in stage grpo, whose generation keeps whole"
            f" rows on a rank; got {recipe.engine.sequence_parallel}."
        )
    _check_parts(recipe)
    _check_packing(recipe)
    require_pixels(recipe.data.min_pixels, recipe.data.max_pixels)
    _check_agto_schedule(recipe)
    sees_system = recipe.data.system_prompt is not None
    needs_system = recipe.agto.enabled or (recipe.stage == "grpo" and recipe.grpo.visual_weight)
    if needs_system and not sees_system:
        raise ValueError(
            "data.system_prompt must be set where AGTO or VARS is on, they compare image with"
            " system attention; got null. Give a text, or set agto.enabled=false and take"
            f" {VISUAL} out of grpo.rewards."
        )


def _check_parts(recipe: "Recipe") -> None:
    train = recipe.train
    if set(recipe.model.freeze) == {"vision", "projector", "language"}:
        raise ValueError("model.freeze must leave a part to train; got all three.")
    if recipe.lora.enabled and recipe.model.freeze:
        raise ValueError(
            "model.freeze must be empty with lora.enabled, which trains adapters of the text"
            f" tower alone; got {list(recipe.model.freeze)}."
        )
    if recipe.lora.enabled and not recipe.lora.targets:
        raise ValueError("lora.targets must name a layer with lora.enabled; got none.")
    if train.offload_optimizer and train.zero_stage == 0:
        raise ValueError("train.offload_optimizer needs train.zero_stage 1 or more; got 0.")
    if train.offload_params and train.zero_stage != 3:
        raise ValueError(f"train.offload_params needs train.zero_stage=3; got {train.zero_stage}.")


def _check_limits(recipe: "Recipe") -> None:
    """Values beyond these are finite and end all the same in a loss that is not, or in an error
    from within, at the first steps."""
    most_weight, most_gib = 1e6, 1e6
    require_within(
        {
            "train.seed": (recipe.train.seed, -LARGEST_COUNT, LARGEST_COUNT),
            "optim.weight_decay": (recipe.optim.weight_decay, 0, 1e5),
            "lora.alpha": (recipe.lora.alpha, 0, most_weight),
            "data.cache_gib": (recipe.data.cache_gib, 0, most_gib),
            # Whether it holds a column of logits shows with the first batch, which says so.
            "model.head_memory_gib": (recipe.model.head_memory_gib, 2**-30, most_gib),
            # The logarithm of a mass of 0, and its gradient, stay within float32.
            "agto.eps": (recipe.agto.eps, 1e-30, 1.0),
        }
    )


def _check_agto_schedule(recipe: "Recipe") -> None:
    agto = recipe.agto
    if not 0 <= agto.warmup < 1:
        raise ValueError(f"agto.warmup must be in [0, 1); got {agto.warmup}.")
    if agto.decay_fraction is None:
        return
    if not 0 < agto.decay_fraction <= 1 - agto.warmup:
        raise ValueError(
            "agto.decay_fraction must be positive and leave room for agto.warmup ="
            f" {agto.warmup}; got {agto.decay_fraction}."
        )
    if agto.alpha_end is None and agto.beta_end is None:
        raise ValueError(
            "agto.decay_fraction needs agto.alpha_end or agto.beta_end to move to; both are"
            " null. Set one, or leave it out."
        )


def _check_packing(recipe: "Recipe") -> None:
    if recipe.data.pack_capacity < recipe.data.max_length:
        raise ValueError(
            "data.pack_length must be at least data.max_length ="
            f" {recipe.data.max_length}, so that every sample fits; got {recipe.data.pack_length}."
        )
    if recipe.data.packing and recipe.stage != "sft":
        raise ValueError(
            "data.packing works in stage sft; got stage grpo, whose prompts are padded for"
            " generation. Set data.packing=false."
        )
    if recipe.data.packing and recipe.train.micro_batch_size != 1:
        raise ValueError(
            "train.micro_batch_size must be 1 with data.packing, a pack is one row; got"
            f" {recipe.train.micro_batch_size}. Raise data.pack_length instead."
        )


def _check_ranges(recipe: "Recipe") -> None:
    positive = {
        "train.steps": recipe.train.steps,
        "train.batch_size": recipe.train.batch_size,
        "train.micro_batch_size": recipe.train.micro_batch_size,
        "train.keep_last": recipe.train.keep_last,
        "train.log_every": recipe.train.log_every,
        "data.max_length": recipe.data.max_length,
        "optim.lr": recipe.optim.lr,
        "engine.sequence_parallel": recipe.engine.sequence_parallel,
        "lora.rank": recipe.lora.rank,
        "lora.alpha": recipe.lora.alpha,
        "eval.every": recipe.eval.every,
        "eval.batch_size": recipe.eval.batch_size,
    }
    optional = {
        "data.limit": recipe.data.limit,
        "data.pack_length": recipe.data.pack_length,
        "data.min_pixels": recipe.data.min_pixels,
        "data.max_pixels": recipe.data.max_pixels,
        "eval.limit": recipe.eval.limit,
        "train.save_every": recipe.train.save_every,
        "model.head_memory_gib": recipe.model.head_memory_gib,
        "tracking.peak_tflops": recipe.tracking.peak_tflops,
        "optim.vision_lr": recipe.optim.vision_lr,
        "optim.projector_lr": recipe.optim.projector_lr,
    }
    positive |= {name: value for name, value in optional.items() if value is not None}
    not_negative = {
        "data.cache_gib": recipe.data.cache_gib,
        "data.workers": recipe.data.workers,
        "optim.weight_decay": recipe.optim.weight_decay,
        "optim.warmup_steps": recipe.optim.warmup_steps,
        "optim.max_grad_norm": recipe.optim.max_grad_norm,
        "agto.eps": recipe.agto.eps,
        "eval.max_new_tokens": recipe.eval.max_new_tokens,
    }
    require_positive(positive)
    require_not_negative(not_negative)
    _check_limits(recipe)
    below_one = {
        "optim.betas[0]": recipe.optim.betas[0],
        "optim.betas[1]": recipe.optim.betas[1],
        "lora.dropout": recipe.lora.dropout,
    }
    weights = {  # a negative weight is the user's experiment
        "agto.alpha": recipe.agto.alpha,
        "agto.beta": recipe.agto.beta,
    }
    ends = {"agto.alpha_end": recipe.agto.alpha_end, "agto.beta_end": recipe.agto.beta_end}
    weights |= {name: value for name, value in ends.items() if value is not None}
    for name, value in below_one.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1); got {value}.")
    for name, value in weights.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite; got {value}.")
        require_within({name: (value, -1e6, 1e6)})
