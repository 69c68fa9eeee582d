"""Attaching a model: from then on each forward derives its key types from input_ids by itself.

The hooks of a model are all there is of its attachment, so what copies or stores a model copies or
stores that too: a deep copy is attached by itself, records and is changed by itself.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from avar_kernels import plan_keys
from torch import Tensor, nn
from transformers import Cache

from ..models import family_of
from ..models.sequence_split import split_text_inputs
from .caches import num_slots, set_cached_ids, with_cached_ids
from .call import CALL_ARGUMENT, AttnCall
from .packing import PACKING_ARGUMENTS, packing_of, refuse_packing
from .padding import existing_keys
from .sequence import SequenceSplit
from .tokens import SpecialTokens, key_types

ATTN_NAME = "avar"


@dataclass
class Recording:
    """Attention masses of the latest forward inside ``record_attention``."""

    mass: dict[int, Tensor] = field(default_factory=dict)
    """{layer: (B, L, H, 3) float32}, part of the graph; with a cache, L is the new tokens only;
    with a split sequence, H is the heads of this rank."""
    key_types: Tensor | None = None
    """(B, Lk) int32 types of all keys that the masses are sums over; with a cache, Lk counts the
    cached keys too. None before the first forward."""


@dataclass(frozen=True)
class Intervention:
    bias: tuple[float, ...] | tuple[tuple[float, ...], ...]
    """By key type, or by head and key type."""
    scale: tuple[float, ...] | tuple[tuple[float, ...], ...]
    layers: frozenset[int]


class Attachment:
    """Builds the ``AttnCall`` of every forward of one model."""

    def __init__(self, model: nn.Module, tokens: SpecialTokens) -> None:
        family = family_of(model)
        self.tokens = tokens
        self.num_layers = len(family.text_attention(model))
        self.num_heads = family.num_heads(model)
        self.recording: Recording | None = None
        self.record_layers: frozenset[int] = frozenset()
        self.intervention: Intervention | None = None
        self.sequence: SequenceSplit | None = None
        # Not the LM head's forward: who calls the model below it must be heard as well.
        body = family.body(model)
        body.register_forward_pre_hook(self.enter, with_kwargs=True)
        body.register_forward_hook(self._leave, with_kwargs=True)
        family.text_tower(model).register_forward_pre_hook(self._enter_text, with_kwargs=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Attachment":
        """For a copy of the model. What is recorded or changed right now ends with a with-statement
        around the model it was said of; ranks are shared by reference."""
        copied = object.__new__(Attachment)
        copied.__dict__.update(self.__dict__, **_AT_REST)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """For a model stored whole (torch.save)."""
        if self.sequence is not None:
            raise ValueError(
                "a model whose sequence is split among ranks cannot be stored whole, as these ranks"
                " end with the run. Undo it with split_sequence(model, None), or store the"
                " state_dict."
            )
        return self.__dict__ | _AT_REST

    def enter(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        kwargs = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | kwargs
        input_ids = kwargs.get("input_ids")
        if input_ids is None:
            raise ValueError(
                "an attached model needs input_ids, from which key types are derived; got"
                " inputs_embeds alone. Pass input_ids, or detach with"
                " avar_fast.attention.detach(model)."
            )
        cache = kwargs.get("past_key_values")
        ids, slots = with_cached_ids(input_ids, cache), num_slots(cache)
        mask = _padding_mask(kwargs.get("attention_mask"), ids, slots)
        types = key_types(ids, mask, tokens=self.tokens)
        packing = packing_of(kwargs, len(ids))
        positions = kwargs.get("position_ids")
        if packing is None and positions is not None:
            has_video = kwargs.get("video_grid_thw") is not None
            refuse_packing(positions, mask, ids.shape[1], may_fall=has_video)
        keys = plan_keys(types) if packing is None else plan_keys(types[0], **packing)
        if self.sequence is not None and ids.shape != input_ids.shape:
            raise ValueError(
                "a split sequence works without a cache of keys; past_key_values holds some. Call"
                " the model with use_cache=False, or undo it with split_sequence(model, None)."
            )
        call = AttnCall(ids, keys, torch.is_grad_enabled(), packing, slots, self.sequence)
        if self.recording is not None:
            call.mass = self.recording.mass = {}
            self.recording.key_types = types
            call.record_layers = self.record_layers
        if self.intervention is not None:
            call.type_bias = torch.tensor(self.intervention.bias, device=ids.device)
            call.type_scale = torch.tensor(self.intervention.scale, device=ids.device)
            call.intervene_layers = self.intervention.layers
        # The offsets of samples go with the call: as arguments they would reach the vision tower
        # too, whose flash attention is called with offsets of its own under the same names.
        kwargs = {k: v for k, v in kwargs.items() if k not in PACKING_ARGUMENTS}
        return (), kwargs | {CALL_ARGUMENT: call}

    def _leave(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        """Remembers the tokens behind the cache that comes out, which the model itself may have
        made. They stay with the cache, so that a copy of it has them too."""
        fields = output.values() if isinstance(output, dict) else output
        for cache in (kwargs.get("past_key_values"), *fields):
            if isinstance(cache, Cache):
                set_cached_ids(cache, kwargs[CALL_ARGUMENT].token_ids)

    def _enter_text(
        self, tower: nn.Module, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict[str, Any]]:
        """Leaves this rank's stretch of the tokens, where the sequence is split. Recording or
        changing nothing must not look like success."""
        if CALL_ARGUMENT not in kwargs and (self.recording or self.intervention or self.sequence):
            raise RuntimeError(
                "record_attention, intervene and split_sequence act on forwards of the attached"
                " model; its text tower was called alone. Call model(input_ids=...) or"
                " model.model(input_ids=...)."
            )
        if self.sequence is not None:
            kwargs = split_text_inputs(kwargs, self.sequence.split)
        return args, kwargs


_AT_REST = {"recording": None, "record_layers": frozenset(), "intervention": None}


def attach(model: nn.Module, processor: Any) -> None:
    """Makes every forward of ``model`` derive key types from its input_ids.

    Args:
        model: a supported transformers model whose text tower uses attn_implementation "avar".
        processor: the model's processor or tokenizer, for the ids of its special tokens.

    Raises:
        TypeError: no supported model family.
        ValueError: the text tower uses another attention, or the tokenizer lacks Qwen-VL's tokens.
    """
    family = family_of(model)
    name = family.text_attention_name(model)
    if name != ATTN_NAME:
        raise ValueError(
            f'model must use attn_implementation "avar" in its text tower; got {name!r}. Load it'
            ' with attn_implementation={"text_config": "avar", "vision_config": "sdpa"}.'
        )
    tokens = SpecialTokens.from_processor(processor)
    detach(model)
    Attachment(model, tokens)


def detach(model: nn.Module) -> None:
    """Undoes ``attach`` for a model, a copy of one, or the model inside a wrapper; one that is not
    attached is left alone."""
    for hooks, flags, key in [found[:3] for found in _hooks_in(model)]:
        del hooks[key]
        flags.pop(key, None)


def split_sequence(model: nn.Module, sequence: SequenceSplit | None) -> None:
    """From now on every rank of a group runs the text tower on its stretch of the tokens.

    All ranks pass the same whole inputs; the vision tower runs whole on each. The model's hidden
    states and logits are of the stretch, recorded masses of all tokens and this rank's heads.

    Args:
        model: an attached model.
        sequence: the split, None to undo it.

    Raises:
        ValueError: the number of attention heads is not a multiple of the ranks that share a row.
    """
    attachment = attachment_of(model)
    heads = family_of(model).text_tower(model).config.num_attention_heads
    if sequence is not None and heads % sequence.size:
        raise ValueError(
            f"engine.sequence_parallel must divide the text tower's {heads} attention heads; got"
            f" {sequence.size}."
        )
    attachment.sequence = sequence


def attachment_of(model: nn.Module) -> Attachment:
    """The attachment of a model or of the model inside a wrapper (DeepSpeed engine, PEFT).

    Raises:
        ValueError: there is none, or there are several.
    """
    found = [hook.__self__ for *_, hook in _hooks_in(model) if hook.__func__ is Attachment.enter]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"model must hold one attached model; this {type(model).__name__} holds {len(found)}."
            " Pass the one that is meant."
        )
    raise ValueError(
        "model must be attached first; it is not. Call avar_fast.attention.attach(model,"
        " processor)."
    )


def _hooks_in(model: nn.Module) -> Iterator[tuple[dict, dict, int, Any]]:
    """(the dictionary that holds it, that of its flags, key, hook) of every hook of an attachment
    in a model."""
    for module in model.modules():
        for hooks, flags in (
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
            (module._forward_hooks, module._forward_hooks_with_kwargs),
        ):
            for key, hook in hooks.items():
                if isinstance(getattr(hook, "__self__", None), Attachment):
                    yield hooks, flags, key, hook


def _padding_mask(attention_mask: Any, ids: Tensor, slots: int | None) -> Tensor | None:
    """The (B, L) padding mask over cached and new tokens, from what the model was given."""
    if isinstance(attention_mask, dict):  # generate prepares one mask per layer type
        attention_mask = attention_mask.get("full_attention")
    if attention_mask is None:
        return None
    if attention_mask.dim() == 4 and slots is not None:
        _, attention_mask = existing_keys(attention_mask, slots)
        assert attention_mask is not None
    if attention_mask.dim() != 2 or attention_mask.shape[1] < ids.shape[1]:
        raise ValueError(
            f"attention_mask must be 2-D over all {ids.shape[1]} tokens, the cached ones included;"
            f" got shape {tuple(attention_mask.shape)}. 'avar' builds causal visibility itself."
        )
    return attention_mask[:, : ids.shape[1]]
