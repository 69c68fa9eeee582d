"""Attaching a model: from then on each forward derives its key types from input_ids by itself."""

import inspect
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from avar_kernels import plan_keys
from torch import Tensor, nn
from transformers import Cache

from ..models import family_of
from ..models.splitting import split_text_inputs
from .call import (
    CALL_ARGUMENT,
    PACKING_ARGUMENTS,
    AttnCall,
    packing_of,
)
from .sequence import SequenceSplit
from .tokens import SpecialTokens, key_types

ATTN_NAME = "avar"
_IDS_OF_CACHE = "avar_token_ids"
_attached: "weakref.WeakKeyDictionary[nn.Module, Attachment]" = weakref.WeakKeyDictionary()


@dataclass
class Recording:
    """Attention masses of the latest forward inside ``record_attention``."""

    mass: dict[int, Tensor] = field(default_factory=dict)
    """{layer: (B, L, H, 3) float32}, part of the graph; with a cache, L is the new tokens only;
    with a split sequence, H is the heads of this rank."""


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
        self.hooks = (
            body.register_forward_pre_hook(self._enter, with_kwargs=True),
            body.register_forward_hook(self._leave, with_kwargs=True),
            family.text_tower(model).register_forward_pre_hook(self._enter_text, with_kwargs=True),
        )

    def _enter(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        kwargs = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | kwargs
        input_ids = kwargs.get("input_ids")
        if input_ids is None:
            raise ValueError(
                "an attached model needs input_ids, from which key types are derived; got"
                " inputs_embeds alone. Pass input_ids, or detach with"
                " avar_fast.attention.detach(model)."
            )
        ids = self._with_cached(input_ids, kwargs.get("past_key_values"))
        mask = _padding_mask(kwargs.get("attention_mask"), ids)
        _refuse_hidden_packing(kwargs, mask)
        types = key_types(ids, mask, tokens=self.tokens)
        packing = packing_of(kwargs, len(ids))
        keys = plan_keys(types) if packing is None else plan_keys(types[0], **packing)
        if self.sequence is not None and ids.shape != input_ids.shape:
            raise ValueError(
                "a split sequence works without a cache of keys; past_key_values holds some. Call"
                " the model with use_cache=False, or undo it with split_sequence(model, None)."
            )
        call = AttnCall(ids, keys, torch.is_grad_enabled(), packing, self.sequence)
        if self.recording is not None:
            call.mass = self.recording.mass = {}
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

    def _with_cached(self, input_ids: Tensor, cache: Any) -> Tensor:
        """(B, cached + new) ids. A cache repeated n-fold for sampling repeats its ids the same
        way."""
        if cache is None:
            return input_ids
        cached = cache.get_seq_length()
        if cached:
            ids = getattr(cache, _IDS_OF_CACHE, None)
            if ids is None or ids.shape[1] < cached or input_ids.shape[0] % ids.shape[0]:
                held = "none" if ids is None else tuple(ids.shape)
                raise ValueError(
                    f"past_key_values holds {cached} keys of a batch of {input_ids.shape[0]} whose"
                    f" tokens are unknown (known: {held}). Fill the cache through the attached"
                    " model."
                )
            ids = ids[:, :cached].repeat_interleave(input_ids.shape[0] // ids.shape[0], dim=0)
            input_ids = torch.cat([ids, input_ids], dim=1)
        return input_ids


def set_cached_ids(cache: Cache, token_ids: Tensor) -> None:
    """Tells an attached model which (B, L) tokens are behind a cache that was put together by
    hand."""
    setattr(cache, _IDS_OF_CACHE, token_ids)


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
    _attached[model] = Attachment(model, tokens)


def detach(model: nn.Module) -> None:
    """Undoes ``attach``; a model that is not attached is left alone."""
    attachment = _attached.pop(model, None)
    if attachment is not None:
        for hook in attachment.hooks:
            hook.remove()


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
    """The attachment of a model or of the model inside a wrapper (DeepSpeed engine, PEFT)."""
    for module in model.modules():
        if module in _attached:
            return _attached[module]
    raise ValueError(
        "model must be attached first; it is not. Call avar_fast.attention.attach(model,"
        " processor)."
    )


def _padding_mask(attention_mask: Any, ids: Tensor) -> Tensor | None:
    """The (B, L) padding mask over cached and new tokens, from what the model was given."""
    if isinstance(attention_mask, dict):  # generate prepares one mask per layer type
        attention_mask = attention_mask.get("full_attention")
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[1] < ids.shape[1]:
        raise ValueError(
            f"attention_mask must be 2-D over all {ids.shape[1]} tokens, the cached ones included;"
            f" got shape {tuple(attention_mask.shape)}. 'avar' builds causal visibility itself."
        )
    return attention_mask[:, : ids.shape[1]]


def _refuse_hidden_packing(kwargs: dict, mask: Tensor | None) -> None:
    """Packed samples announced by position ids alone would see one another, with no error
    anywhere."""
    positions = kwargs.get("position_ids")
    if (
        positions is None
        or kwargs.get(PACKING_ARGUMENTS[0]) is not None
        or positions.dim() != 3
        or positions.shape[0] != 4
    ):
        return
    falls = positions[0, :, 1:] < positions[0, :, :-1]
    if mask is not None and mask.shape == positions.shape[1:]:
        falls &= (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
    if falls.any():
        raise ValueError(
            "position_ids restart inside a row, which means packed samples; 'avar' separates them"
            " by offsets. Pass cu_seq_lens_q, cu_seq_lens_k, max_length_q and max_length_k."
        )
