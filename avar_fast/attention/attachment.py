"""The hooks of an attached model: each of its forwards derives the key types from input_ids.

The attachment consists of the model's hooks only, so it is copied and stored with the model. A deep
copy has its own attachment, with its own recordings and interventions.
"""

import inspect
from typing import Any, Protocol

import torch
from avar_kernels import is_decoding, plan_keys
from torch import Tensor, nn
from transformers import Cache

from ..models.decoders import Decoder
from ..models.sequence_split import split_text_inputs
from .caches import given_cache, num_slots, set_cached_ids, with_cached_ids
from .call import CALL_ARGUMENT, AttnCall, MapReader, SequenceSplit
from .intervention import Change, Intervention
from .key_typing import KeyTyping
from .packing import (
    PACKING_ARGUMENTS,
    PREFIX_ARGUMENT,
    packing_by_positions,
    packing_of,
    refuse_packing,
)
from .padding import is_causal, known_padding, recurrent_mask
from .prompts import call_of, prompts_of
from .recording import Recording
from .tokens import PLAIN, query_mask
from .turns import SharedOrder, TokenOrder
from .visual_ids import require_modalities, without_featureless


class MapRecording(MapReader, Protocol):
    """What a recording of attention maps needs of each forward; maps.py implements it."""

    chosen: str | Tensor
    key_type: int

    def begin(self, queries: Tensor, keys: Tensor) -> None:
        """(B, L) bool queries and keys of a forward."""
        ...


class Attachment:
    """Builds the ``AttnCall`` of every forward of one model, in hooks of the model."""

    def __init__(self, decoder: Decoder, typing: KeyTyping) -> None:
        self.typing, self.tokens = typing, typing.tokens
        self.layers = frozenset(decoder.attention)
        self.num_heads = decoder.num_heads
        self.group = decoder.num_heads // decoder.num_kv_heads
        self.is_family, self.is_recurrent = decoder.is_family, bool(decoder.recurrent)
        self.recording: Recording | None = None
        self.record_layers: frozenset[int] = frozenset()
        self.maps: MapRecording | None = None
        self.intervention: Intervention | None = None
        self.sequence: SequenceSplit | None = None
        self.given_ids: Tensor | None = None
        # Hooks of the body, not of the LM head's model: callers may call the body directly.
        decoder.body.register_forward_pre_hook(self.enter, with_kwargs=True)
        decoder.body.register_forward_hook(self._leave, with_kwargs=True)
        decoder.tower.register_forward_pre_hook(self._enter_text, with_kwargs=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Attachment":
        """A copy for a copied model. Active recordings and interventions stay with the original,
        whose with-statement ends them; the sequence split is shared."""
        copied = object.__new__(Attachment)
        copied.__dict__.update(self.__dict__, **_AT_REST)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """The state for a model that is stored whole (torch.save)."""
        if self.sequence is not None:
            raise ValueError(
                "a model whose sequence is split among ranks cannot be stored whole, as these ranks"
                " end with the run. Undo it with split_sequence(model, None), or store the"
                " state_dict."
            )
        return self.__dict__ | _AT_REST

    def enter(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Pre-forward hook: adds the ``AttnCall`` to the arguments."""
        if args:
            kwargs = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | kwargs
        cache = given_cache(kwargs)
        if (fixed := call_of(cache)) is not None:
            return (), kwargs | {CALL_ARGUMENT: fixed}
        input_ids = self._new_ids(kwargs)
        ids, slots = with_cached_ids(input_ids, cache), num_slots(cache)
        mask = known_padding(kwargs.get("attention_mask"), ids, slots)
        packing, prompts = self._packing(kwargs, mask, ids), prompts_of(cache)
        order = _order(packing, ids.shape[1])
        if prompts is None:
            types = self.typing(ids, mask, order)
        else:
            types = prompts.types_behind(ids, mask, self.typing)
        num_types = self.typing.num_types
        if packing is None:
            # A decoding step attends to sorted blocks in none of its layers.
            decoding = prompts is not None or is_decoding(
                input_ids.shape[1], ids.shape[1], self.group
            )
            keys = plan_keys(types, num_types=num_types, sort=not decoding)
        else:
            keys = plan_keys(types.flatten(), num_types=num_types, **packing)
        if self.sequence is not None and (prompts or ids.shape != input_ids.shape):
            raise ValueError(
                "a split sequence works without a cache of keys; the given one holds some. Call the"
                " model with use_cache=False, or undo it with split_sequence(model, None)."
            )
        call = AttnCall(ids, keys, torch.is_grad_enabled(), packing, slots, self.sequence)
        call.num_types = num_types
        if prompts is not None:
            call.prompts, call.prompt_plan = prompts.layers, prompts.plan(self.typing)
            by_role = self.intervention is not None and self.intervention.queries != "all"
            if self.recording is not None or by_role:
                rows = prompts.rows.long()
                types = torch.cat([prompts.types(self.typing)[rows], types], dim=1)
                ids = torch.cat([prompts.ids[rows], ids], dim=1)
        if self.recording is not None:
            self.recording.begin(ids, types, input_ids.shape[1], self.tokens, order)
            call.mass, call.record_layers = self.recording.mass, self.record_layers
        if self.maps is not None:
            whole = packing is None and prompts is None and ids.shape == input_ids.shape
            if not whole or self.sequence is not None or self.intervention is not None:
                raise ValueError(
                    "record_maps reads whole rows of unchanged attention; got a cache, packed rows,"
                    " a split sequence or an intervention. Call the model on padded rows with"
                    " use_cache=False."
                )
            queries = self.maps.chosen
            if isinstance(queries, str):
                queries = query_mask(ids, types >= 0, role=queries, tokens=self.tokens)
            elif queries.shape != ids.shape or queries.dtype != torch.bool:
                raise ValueError(
                    f"queries must be bool of shape {tuple(ids.shape)}, as input_ids; got"
                    f" {queries.dtype} {tuple(queries.shape)}."
                )
            self.maps.begin(queries.to(ids.device), types == self.maps.key_type)
            call.maps = self.maps
        if self.intervention is not None:
            chosen = self._changed_queries(ids, types, order)
            queries = None if chosen is None else chosen[:, -input_ids.shape[1] :]
            tables = self.intervention.tables(ids.device)
            call.change = Change(tables, self.intervention.layers, queries)
        # The offsets of samples travel in the call. As arguments they would also reach the vision
        # tower, whose flash attention has its own offsets under the same names.
        ours = (*PACKING_ARGUMENTS, PREFIX_ARGUMENT)
        kwargs = {k: v for k, v in kwargs.items() if k not in ours}
        return (), kwargs | {CALL_ARGUMENT: call}

    def _changed_queries(self, ids: Tensor, types: Tensor, order: TokenOrder) -> Tensor | None:
        """(B, Lk) bool, the tokens whose attention an intervention changes; None for all."""
        assert self.intervention is not None
        role = self.intervention.queries
        if role == "all":
            return None
        return query_mask(ids, types >= 0, role=role, tokens=self.tokens, order=order)

    def _new_ids(self, kwargs: dict[str, Any]) -> Tensor:
        """The (B, L) ids of the new tokens; ``NO_TOKEN`` for image tokens without a feature."""
        input_ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        if input_ids is not None:
            if not self.is_family:  # which may take features under other names
                return input_ids
            known = without_featureless(input_ids, kwargs, self.tokens)
            require_modalities(input_ids, known, kwargs, self.tokens)
            return known
        if self.given_ids is None:
            raise ValueError(
                "an attached model needs input_ids, from which key types are derived; got"
                " inputs_embeds alone. Pass input_ids, give the ids with"
                " avar_fast.attention.given_ids(model, input_ids), or detach with"
                " avar_fast.attention.detach(model)."
            )
        if embeds is None or embeds.shape[:2] != self.given_ids.shape:
            shape = None if embeds is None else tuple(embeds.shape[:2])
            raise ValueError(
                f"given_ids must have the (B, L) of inputs_embeds, {shape}; got"
                f" {tuple(self.given_ids.shape)}."
            )
        return self.given_ids

    def _packing(
        self, kwargs: dict[str, Any], mask: Tensor | None, ids: Tensor
    ) -> dict[str, Any] | None:
        """The offsets of packed samples, as arguments of the kernels; None without packing."""
        packing, positions = packing_of(kwargs, len(ids)), kwargs.get("position_ids")
        if packing is None and positions is not None:
            if positions.dim() == 3 and positions.shape[0] == 4:  # the first row counts tokens
                packing = packing_by_positions(positions[0], mask, len(ids), ids.shape[1])
            else:
                has_video = kwargs.get("video_grid_thw") is not None
                refuse_packing(positions, mask, ids.shape[1], may_fall=has_video)
        if packing is not None and self.is_recurrent:
            raise ValueError(
                "packed samples must be rows of their own in a model with recurrent layers, which"
                " would carry their state from one sample to the next. Pad the rows and pass"
                " attention_mask."
            )
        return packing

    def _leave(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        """Stores the token ids in the returned cache, which the model may have created. A copy of
        the cache then has them too."""
        fields = output.values() if isinstance(output, dict) else output
        for cache in (given_cache(kwargs), *fields):
            if isinstance(cache, Cache):
                set_cached_ids(cache, kwargs[CALL_ARGUMENT].token_ids)
        if self.recording is not None:
            self.recording.end()

    def _enter_text(
        self, tower: nn.Module, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict[str, Any]]:
        """Pre-forward hook of the text tower: keeps this rank's part of the tokens if the sequence
        is split. It raises if a recording or intervention would have no effect."""
        call = kwargs.get(CALL_ARGUMENT)
        if call is None and (self.recording or self.maps or self.intervention or self.sequence):
            raise RuntimeError(
                "record_attention, record_maps, intervene and split_sequence act on forwards of the"
                " attached model; its text tower was called alone. Call model(input_ids=...) or"
                " model.model(input_ids=...)."
            )
        if self.sequence is not None:
            kwargs = split_text_inputs(kwargs, self.sequence.split)
        if call is not None and self.is_family and is_causal(tower, kwargs):
            # The layers know padding by its key type. transformers passes a mask of four dimensions
            # on as it is; from any other it would derive one, and wait for the device to do so.
            masks: Any = call.token_ids.new_empty(1, 1, 1, 1)
            if self.is_recurrent:
                masks = {"full_attention": masks, "linear_attention": recurrent_mask(kwargs)}
            kwargs = kwargs | {"attention_mask": masks}
        return args, kwargs


_AT_REST = {
    "recording": None,
    "record_layers": frozenset(),
    "intervention": None,
    "maps": None,
    "given_ids": None,
}


def _order(packing: dict[str, Any] | None, length: int) -> TokenOrder:
    """The order of a row's tokens, in which turns are found."""
    prefixes = None if packing is None else packing.get(PREFIX_ARGUMENT)
    if packing is None or prefixes is None:
        return PLAIN
    return SharedOrder(packing["cu_seqlens_k"], prefixes, length)
