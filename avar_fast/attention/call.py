"""What one forward pass carries to its attention layers, and the attention function itself.

The state of a forward travels through the model as a keyword argument instead of sitting on a
module. Gradient checkpointing replays a layer with the arguments it had, so a replay sees the key
types of its own forward even when other forwards have run in between.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from avar_kernels import KeyPlan, KeyType, visual_attn_func, visual_attn_varlen_func
from torch import Tensor, nn

from .packing import packing_by_positions, packing_of
from .padding import existing_keys
from .sequence import SequenceSplit

NUM_TYPES = 3
# transformers hands a vision tower's images over in one call, by offsets, only to an attention with
# "flash" in its name; to others one by one, reading the offsets back from the device in each layer.
VISION_ATTN_NAME = "avar_flash"
CALL_ARGUMENT = "avar_call"


@dataclass
class AttnCall:
    """Key types of one forward, where to record masses, and which logits to change."""

    token_ids: Tensor
    """(B, Lk) of all keys, the cached ones included."""
    keys: KeyPlan
    """Types of the same keys, prepared once for all layers; (Lk,) where samples are packed."""
    grad_enabled: bool
    """Whether gradients were on when the model was entered."""
    packing: dict[str, Any] | None = None
    """From ``packing_of``: where samples packed into one row begin and end."""
    num_slots: int | None = None
    """Keys that a preallocated cache hands over, written or not; None for other caches."""
    sequence: SequenceSplit | None = None
    """Set where the layers see a stretch of the tokens; the types are of all of them."""
    mass: dict[int, Tensor] | None = None
    """Filled with {layer: (B, L, H, 3)} where recording; with a split sequence, with all tokens and
    this rank's heads."""
    record_layers: frozenset[int] = frozenset()
    type_bias: Tensor | None = None
    """(3,) float32 added to the logits by key type."""
    type_scale: Tensor | None = None
    """(3,) float32 factor of the logits by key type."""
    intervene_layers: frozenset[int] = field(default_factory=frozenset)


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
    """transformers' attention interface: (B, H, L, D) queries on (B, Hkv, Lk, D) keys -> (B, L, H,
    D).

    Without an attached model it is plain attention over the keys that ``attention_mask`` leaves,
    among samples that offsets or text positions tell apart. transformers' Qwen2-VL and Qwen2.5-VL
    hand text positions on from 4-row position_ids only; packed by others they leak under every
    attention.
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
        if _reads_pixels_alone(module):
            kwargs = {}
        options: dict[str, Any] = {"softmax_scale": scaling, "causal": causal}
        return _plain(q, k, v, attention_mask, kwargs, options), None

    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    if call.grad_enabled and not torch.is_grad_enabled():
        raise RuntimeError(
            "reentrant gradient checkpointing runs layers without gradients and loses those of"
            " recorded attention. Use"
            ' model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant":'
            " False})."
        )
    options = {"num_types": NUM_TYPES, "softmax_scale": scaling, "causal": True}
    if layer in call.intervene_layers:
        options |= {"type_bias": call.type_bias, "type_scale": call.type_scale}
    known = call.keys.key_types.shape[-1]
    if call.sequence is not None:
        q, k, v = call.sequence.to_heads(q, k, v, known)
    elif k.shape[1] == call.num_slots:
        k, v = k[:, :known], v[:, :known]
    elif k.shape[1] != known:
        raise ValueError(
            f"past_key_values gave layer {layer} {k.shape[1]} keys of {known} tokens; 'avar' cuts"
            " the keys of a preallocated cache only (StaticCache). Fill the cache through the"
            " attached model, with a key for every token."
        )
    out, mass = _attend(q, k, v, call.keys, call.packing, options)
    if call.mass is not None and layer in call.record_layers and layer not in call.mass:
        call.mass[layer] = mass  # a checkpoint's replay finds its layer filled and leaves it
    return (out if call.sequence is None else call.sequence.to_tokens(out)), None


def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention_mask: Tensor | None,
    arguments: dict[str, Any],
    options: dict[str, Any],
) -> Tensor:
    """out of a model that is not attached."""
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
    return _attend(q, k, v, types, packing, options)[0]


def _reads_pixels_alone(module: nn.Module) -> bool:
    """Whether packing that a layer hears of is the text's, which models pass on to their vision
    tower unasked; its own comes under the name of a flash attention only."""
    config: Any = getattr(module, "config", None)
    name = getattr(config, "_attn_implementation", None) or ""
    return getattr(config, "base_config_key", "") == "vision_config" and "flash" not in name


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    types: Tensor | KeyPlan | None,
    packing: dict[str, Any] | None,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """out and mass; packed samples do not see one another."""
    if packing is None:
        dense = visual_attn_func(q, k, v, types, **options)
        return dense.out, dense.mass
    ends = [x.flatten(0, 1) for x in (q, k, v)]
    packed = visual_attn_varlen_func(
        ends[0], ends[1], ends[2], key_types=types, **packing, **options
    )
    return packed.out.unflatten(0, q.shape[:2]), packed.mass.unflatten(0, q.shape[:2])
