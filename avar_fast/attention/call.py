"""The attention function of transformers models, and the state of a forward that it reads.

The state of a forward is a keyword argument that travels through the model; it is not stored on a
module. Gradient checkpointing replays a layer with its original arguments, so a replay sees the key
types of its own forward even if other forwards have run since.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from avar_kernels import (
    AttnOutput,
    KeyPlan,
    KeyType,
    PrefixPlan,
    visual_attn_func,
    visual_attn_varlen_func,
    visual_attn_with_kvcache,
)
from torch import Tensor, nn

from .intervention import Change
from .key_typing import MIN_TYPES
from .packing import PREFIX_ARGUMENT, packing_by_positions, packing_of
from .padding import existing_keys

# transformers passes all images of a vision tower in one call, with offsets, only to an attention
# with "flash" in its name. For others it splits the images, and reads the offsets back from the
# device in each layer.
VISION_ATTN_NAME = "avar_flash"
CALL_ARGUMENT = "avar_call"


class SequenceSplit(Protocol):
    """A split of a row's tokens among ranks; train/sequence_parallel.py implements it."""

    size: int
    """Ranks that share a row."""

    def split(self, rows: Tensor, dim: int, fill: float = 0) -> Tensor:
        """This rank's part of the tokens along ``dim``."""
        ...

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> tuple[Tensor, ...]:
        """This rank's tokens of all heads -> all ``length`` tokens of this rank's heads."""
        ...

    def to_tokens(self, out: Tensor) -> Tensor:
        """All tokens of this rank's heads -> this rank's tokens of all heads."""
        ...


class MapReader(Protocol):
    """Reads layers' attention to single keys; maps.py implements it."""

    def add(self, layer: int, q: Tensor, k: Tensor, lse: Tensor, scale: float) -> None:
        """q (B, L, H, D), k (B, L, Hkv, D), lse (B, H, L) of a layer."""
        ...


@dataclass
class AttnCall:
    """State of one forward: key types, recorded masses, and changes of logits."""

    token_ids: Tensor
    """(B, Lk) int64 token ids of all keys, including cached keys."""
    keys: KeyPlan
    """Types of these keys, prepared once for all layers; of shape (Lk,) for packed samples."""
    grad_enabled: bool
    """Whether gradients were enabled when the model was called."""
    packing: dict[str, Any] | None = None
    """Offsets of samples packed into one row, from ``packing_of``."""
    num_slots: int | None = None
    """Slots of a preallocated cache, written or not; None for other caches."""
    sequence: SequenceSplit | None = None
    """Set if the layers see only a part of the tokens; the key types are those of all tokens."""
    mass: dict[int, Tensor] | None = None
    """While recording, filled with {layer: (B, L, H, C) float32}. With a split sequence, L counts
    all tokens and H this rank's heads."""
    record_layers: frozenset[int] = frozenset()
    """The layers to record."""
    maps: MapReader | None = None
    """Reads the attention to single keys."""
    change: Change | None = None
    """The intervention."""
    num_types: int = MIN_TYPES
    """Number of key types."""
    prompts: dict[int, tuple[Tensor, Tensor]] | None = None
    """Keys and values of each layer, (P, Hkv, Lp, D), that the rows of a cache share."""
    prompt_plan: PrefixPlan | None = None
    """The types of these keys, and the prompt of each row."""


def avar_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (B, H, L, D) queries and (B, Hkv, Lk, D) keys -> (B, L, H,
    D).

    Without an attached model it is plain attention over the keys that ``attention_mask`` keeps.
    Offsets or text positions separate packed samples. transformers' Qwen2-VL and Qwen2.5-VL pass
    text positions on only from 4-row position_ids; with other position_ids, packed samples attend
    to each other under every attention.

    Raises:
        NotImplementedError: dropout, a sliding window, softcap or attention sinks are requested.
        RuntimeError: gradient checkpointing is reentrant.
        ValueError: the numbers of keys and tokens differ, or the mask does not fit.
    """
    if dropout:
        raise NotImplementedError(
            f"attention dropout must be 0 with 'avar'; got {dropout}. Set attention_dropout=0.0."
        )
    if sliding_window is not None:
        raise NotImplementedError(
            "sliding-window layers are not supported with 'avar'; got a window of"
            f" {sliding_window}. Set use_sliding_window=False."
        )
    for name in ("softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(
                f"{name} is not supported with 'avar', which has a plain softmax. Use another"
                " attn_implementation."
            )
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    call: AttnCall | None = (
        kwargs.get(CALL_ARGUMENT) if causal else None
    )  # vision towers are not causal
    if call is None:
        if _in_vision_tower(module):
            kwargs = _of_vision(module, kwargs)
        options: dict[str, Any] = {"softmax_scale": scaling, "causal": causal}
        return _plain(q, k, v, attention_mask, kwargs, options), None

    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    if call.mass is not None and call.grad_enabled and not torch.is_grad_enabled():
        raise RuntimeError(
            "reentrant gradient checkpointing runs layers without gradients and loses those of"
            " recorded attention. Use"
            ' model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant":'
            " False})."
        )
    options = {"num_types": call.num_types, "softmax_scale": scaling, "causal": True}
    known = call.token_ids.shape[1]
    if call.sequence is not None:
        q, k, v = call.sequence.to_heads(q, k, v, known)
    elif k.shape[1] == call.num_slots:
        k, v = k[:, :known], v[:, :known]
    elif k.shape[1] != known:
        raise ValueError(
            f"the cache gave layer {layer} {k.shape[1]} keys of {known} tokens; 'avar' cuts the"
            " keys of a preallocated cache only (StaticCache). Fill the cache through the attached"
            " model, with a key for every token."
        )

    def attend(**tables: Any) -> tuple[Tensor, Tensor]:
        if call.prompts is None:
            done = _attend(q, k, v, call.keys, call.packing, options | tables)
            if call.maps is not None:
                scale = q.shape[-1] ** -0.5 if scaling is None else scaling
                call.maps.add(layer, q, k, done.lse, scale)
            return done.out, done.mass
        shared = (x.transpose(1, 2) for x in call.prompts[layer])
        prefixes = dict(zip(("prefix_k", "prefix_v"), shared, strict=True))
        decoded = visual_attn_with_kvcache(
            q, k, v, call.keys, **prefixes, prefix_index=call.prompt_plan, **options | tables
        )
        return decoded.out, decoded.mass

    change = call.change
    out, mass = attend() if change is None or layer not in change.layers else change.of(attend)
    if call.mass is not None and layer in call.record_layers and layer not in call.mass:
        call.mass[layer] = mass  # only once: a checkpoint's replay must not replace it
    return (out if call.sequence is None else call.sequence.to_tokens(out)), None


def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention_mask: Tensor | None,
    arguments: dict[str, Any],
    options: dict[str, Any],
) -> Tensor:
    """The attention output in a model that is not attached."""
    num_keys, mask = existing_keys(attention_mask, k.shape[1])
    k, v = k[:, :num_keys], v[:, :num_keys]
    packing = packing_of(arguments, len(q))
    positions = arguments.get("position_ids")
    if packing is None and positions is not None:
        packing = packing_by_positions(positions, mask, len(q), num_keys)
    types = None
    if mask is not None:
        types = torch.where(mask == 0, int(KeyType.PAD), int(KeyType.TEXT)).to(torch.int32)
        types = types if packing is None else types.flatten()
    return _attend(q, k, v, types, packing, options).out


def _in_vision_tower(module: nn.Module) -> bool:
    return getattr(getattr(module, "config", None), "base_config_key", "") == "vision_config"


def _of_vision(module: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a layer of a vision tower may read. The model passes on those that
    describe the text too; only a flash attention gets offsets of its own."""
    config: Any = module.config
    if "flash" not in (getattr(config, "_attn_implementation", None) or ""):
        return {}
    return {name: value for name, value in kwargs.items() if name != PREFIX_ARGUMENT}


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    types: Tensor | KeyPlan | None,
    packing: dict[str, Any] | None,
    options: dict[str, Any],
) -> AttnOutput:
    """Output and masses with the rows of q, where packed samples do not attend to each other; lse
    is that of the kernel."""
    if packing is None:
        return visual_attn_func(q, k, v, types, **options)
    flat_q, flat_k, flat_v = (x.flatten(0, 1) for x in (q, k, v))
    packed = visual_attn_varlen_func(flat_q, flat_k, flat_v, key_types=types, **packing, **options)
    rows = q.shape[:2]
    return AttnOutput(packed.out.unflatten(0, rows), packed.mass.unflatten(0, rows), packed.lse)
