"""Our sampling as TRL's ``rollout_func``, which is experimental in TRL 1.16."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor
from trl.models.utils import (  # pyright: ignore[reportMissingImports]
    unwrap_model_for_generation,
)

from ...attention import SpecialTokens, key_types, record_attention
from ...attention.attached import attachment_of
from ...models.decoders import unwrapped
from ...rollout import Sampling, generate
from .prompts import collate, encode, groups_of
from .reward import MASSES, PROMPT_TYPES
from .settings import require_prompts, require_settings, suppressed


def rollout(
    layers: Sequence[int] | None = None, *, at_once: int | None = None
) -> Callable[[list[Any], Any], dict[str, Any]]:
    """Makes a ``rollout_func`` for TRL's GRPOTrainer.

    Each prompt and its images are read once for all its completions. Image and video pads are never
    sampled. ``temperature``, ``max_completion_length`` and the trainer's end tokens apply; dropout
    is off. The model must be attached (``avar_fast.attention.attach`` or ``use_avar``).

    Args:
        layers: text layers whose attention masses ``vars_reward`` reads, by their index in the
            model; None for all that have attention, and () for sampling without masses.
        at_once: most prompts that are completed at the same time; None completes all.

    Returns:
        A function (prompts, trainer) -> ``prompt_ids``, ``completion_ids`` and ``logprobs`` (None,
        as TRL computes them itself), and the fields of ``vars_reward`` if there are layers.

    Raises:
        ValueError: by the returned function, if the trainer has settings that the engine does not
            know, prompts are texts, or the model is not attached.
    """

    def rollout_func(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        require_settings(trainer)
        require_prompts(prompts, trainer)
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as whole,
            trainer.accelerator.autocast(),
        ):
            rows = _sample(unwrapped(whole), prompts, trainer, layers, at_once)
        return {name: [row[name] for row in rows] for name in rows[0]} | {"logprobs": None}

    return rollout_func


def _sample(
    model: Any,
    prompts: list[Any],
    trainer: Any,
    layers: Sequence[int] | None,
    at_once: int | None,
) -> list[dict[str, Any]]:
    """The fields of one completion for each prompt. Groups of one size are sampled together."""
    attachment = attachment_of(model)
    chosen = tuple(sorted(set(attachment.layers if layers is None else layers)))
    pad_id = trainer.processing_class.tokenizer.pad_token_id
    groups = groups_of(prompts)
    found: dict[int, dict[str, Any]] = {}
    for size in sorted({len(group) for group in groups}):
        of_size = [group for group in groups if len(group) == size]
        encoded = [encode(prompts[group[0]], trainer) for group in of_size]
        sampling = Sampling(
            num_samples=size,
            max_new_tokens=trainer.max_completion_length,
            temperature=trainer.temperature,
            eos_ids=tuple(trainer.eos_token_ids),
            pad_id=pad_id,
            banned_ids=tuple(sorted({*attachment.tokens.visual, *suppressed(trainer)})),
            mass_layers=chosen,
        )
        rollouts = generate(
            model,
            encoded,
            lambda rows: collate(rows, pad_id),
            sampling,
            at_once,
            # FSDP's hooks gather layers from other ranks.
            cuda_graphs=not trainer.is_fsdp_enabled,
        )
        places = [place for group in of_size for place in group]
        for i, (place, mask) in enumerate(zip(places, rollouts.completion_mask, strict=True)):
            inputs, completion = encoded[i // size], rollouts.completion_ids[i][mask]
            fields: dict[str, Any] = {
                "prompt_ids": inputs["input_ids"][0].tolist(),
                "completion_ids": completion.tolist(),
            }
            if rollouts.masses is not None:
                masses = rollouts.masses[i][mask]
                if _has_system_turn(completion[None], attachment.tokens):
                    masses = _whole_masses(model, inputs, completion, chosen)
                fields[MASSES] = masses.cpu()
                types = attachment.typing(inputs["input_ids"], None)
                fields[PROMPT_TYPES] = types.unique().tolist()
            found[place] = fields
    return [found[place] for place in range(len(prompts))]


def _has_system_turn(ids: Tensor, tokens: SpecialTokens) -> bool:
    return bool((key_types(ids, tokens=tokens) == KeyType.SYSTEM).any())


@torch.no_grad()
def _whole_masses(
    model: Any, inputs: dict[str, Tensor], completion: Tensor, layers: tuple[int, ...]
) -> Tensor:
    """(T, layers, 3): the masses of a completion's tokens, from a forward over the whole row.

    The ``<|im_start|>`` of a system turn gets its key type from the word behind it, which is not
    known yet when sampling records the masses. Completions that open a system turn are rare.
    """
    more = {
        "input_ids": completion[None],
        "attention_mask": torch.ones_like(completion[None]),
        "mm_token_type_ids": torch.zeros_like(completion[None]),
    }
    rows = {
        name: torch.cat([value, more[name].to(value)], dim=1) if name in more else value
        for name, value in inputs.items()
    }
    was_training = model.training
    model.eval()
    try:
        with record_attention(model, layers) as recording:
            model(**rows, use_cache=False, logits_to_keep=1)
    finally:
        model.train(was_training)
    by_layer = [recording.mass[layer][0, -len(completion) :].sum(dim=1) for layer in layers]
    return torch.stack(by_layer, dim=1)
