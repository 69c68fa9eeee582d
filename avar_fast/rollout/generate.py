"""Sampling with transformers' own generate: the prompt is read once for all completions of a
group."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from ..attention import SpecialTokens
from ..models import family_of


@dataclass(frozen=True)
class Rollouts:
    """Completions of a batch of prompts, prompt after prompt."""

    completion_ids: Tensor
    """(B * n, T) int64, padded on the right."""
    completion_mask: Tensor
    """(B * n, T) bool, true up to and with the end token."""


@torch.no_grad()
def generate(
    model: nn.Module,
    inputs: dict[str, Tensor],
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    eos_id: int,
    pad_id: int,
    banned_ids: tuple[int, ...],
) -> Rollouts:
    """Samples ``num_samples`` completions per prompt with a KV cache.

    The prompt but for its last token goes through the model once, then the cache is repeated, so
    images and prompts are not encoded once per completion.

    Args:
        model: an attached transformers model (unwrapped).
        inputs: left-padded prompts and their images, as ``collate(..., with_target=False)`` makes
            them.
        num_samples: completions per prompt.
        max_new_tokens: longest completion.
        temperature: 0 for greedy.
        eos_id, pad_id: end of turn, padding.
        banned_ids: never sampled; image pads must be among them, for one would break the next
            forward.

    Raises:
        FloatingPointError: the model's logits are not finite.
    """
    family = family_of(model)
    was_training = model.training
    model.eval()
    saved_deltas = family.get_rope_deltas(model)
    saved_config = model.generation_config
    # generate fills what it is not told from the checkpoint's own sampling settings; training must
    # see the distribution that was sampled from, so only the settings here count.
    model.generation_config = GenerationConfig(  # pyright: ignore[reportArgumentType]
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature if temperature else None,
        top_k=0 if temperature else None,
        top_p=1.0 if temperature else None,
        suppress_tokens=list(banned_ids),
        eos_token_id=eos_id,
        pad_token_id=pad_id,
    )
    try:
        per_token = ("input_ids", "attention_mask", "mm_token_type_ids")
        prefix = {name: x[:, :-1] if name in per_token else x for name, x in inputs.items()}
        family.set_rope_deltas(model, None)
        if "pixel_values" not in inputs:  # positions of plain text: without padding, no offset
            positions = prefix["attention_mask"].cumsum(dim=1).sub(1).clamp(min=0)
            prefix["position_ids"] = positions.expand(3, -1, -1)
            family.set_rope_deltas(model, torch.zeros_like(positions[:, :1]))
        first = model(**prefix, use_cache=True, logits_to_keep=1)
        if not torch.isfinite(first.logits).all():
            raise FloatingPointError(
                "the model gives logits that are not finite; nothing can be sampled."
            )
        cache = first.past_key_values
        deltas = family.get_rope_deltas(model)
        if num_samples > 1:
            cache.batch_repeat_interleave(num_samples)
        # generate takes positions behind a cache from this hidden state of the model
        family.set_rope_deltas(model, deltas.repeat_interleave(num_samples, dim=0))
        prompt_ids = inputs["input_ids"].repeat_interleave(num_samples, dim=0)
        sequences = model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=prompt_ids,
            attention_mask=inputs["attention_mask"].repeat_interleave(num_samples, dim=0),
            past_key_values=cache,
        )
    finally:
        model.generation_config = saved_config
        family.set_rope_deltas(model, saved_deltas)
        model.train(was_training)
    completions = sequences[:, prompt_ids.shape[1] :]
    ended = (completions == eos_id).cumsum(dim=1)
    mask = (ended == 0) | ((completions == eos_id) & (ended == 1))
    return Rollouts(torch.where(mask, completions, pad_id), mask)


def greedy_texts(
    model: nn.Module,
    tokenizer: Any,
    prompts: dict[str, Tensor],
    tokens: SpecialTokens,
    max_new_tokens: int,
) -> list[str]:
    """Greedy completions of left-padded prompts, without the end token."""
    rollouts = generate(
        model,
        prompts,
        num_samples=1,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        eos_id=tokens.turn_end,
        pad_id=tokenizer.pad_token_id,
        banned_ids=tokens.visual,
    )
    return tokenizer.batch_decode(
        [
            ids[mask & (ids != tokens.turn_end)]
            for ids, mask in zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
        ]
    )
