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

from .sequence import SequenceSplit

NUM_TYPES = 3
# transformers hands a vision tower's images over in one call, by offsets, only to an attention with
# "flash" in its name; to others one by one, reading the offsets back from the device in each layer.
VISION_ATTN_NAME = "avar_flash"
CALL_ARGUMENT = "avar_call"
PACKING_ARGUMENTS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


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

    Without an attached model it is plain attention over the keys that ``attention_mask`` leaves.
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
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    call: AttnCall | None = (
        kwargs.get(CALL_ARGUMENT) if causal else None
    )  # vision towers are not causal
    if call is None:
        types, packing = _types_from_mask(attention_mask, k), packing_of(kwargs, len(q))
        if types is not None and packing is not None:
            types = types[0]
        options: dict[str, Any] = {"softmax_scale": scaling, "causal": causal}
        return _attend(q, k, v, types, packing, options)[0], None

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
    elif k.shape[1] > known:  # a preallocated cache is longer than what it holds
        k, v = k[:, :known], v[:, :known]
    out, mass = _attend(q, k, v, call.keys, call.packing, options)
    if call.mass is not None and layer in call.record_layers and layer not in call.mass:
        call.mass[layer] = mass  # a checkpoint's replay finds its layer filled and leaves it
    return (out if call.sequence is None else call.sequence.to_tokens(out)), None


def packing_of(kwargs: dict[str, Any], batch_size: int) -> dict[str, Any] | None:
    """The offsets of samples packed into one row under the kernels' names, None if there are none.

    Raises:
        ValueError: only some of the arguments that announce packing, or more than one row.
    """
    missing = [name for name in PACKING_ARGUMENTS if kwargs.get(name) is None]
    if len(missing) == len(PACKING_ARGUMENTS):
        return None
    if missing or batch_size != 1:
        raise ValueError(
            f"packed samples need a batch of one row and {', '.join(PACKING_ARGUMENTS)}; got"
            f" {batch_size} rows without {', '.join(missing) or 'none of them'}. Lay the samples"
            " end to end in one row, or pad them and pass attention_mask."
        )
    cu_q, cu_k, longest_q, longest_k = (kwargs[name] for name in PACKING_ARGUMENTS)
    return {
        "cu_seqlens_q": cu_q,
        "cu_seqlens_k": cu_k,
        "max_seqlen_q": int(longest_q),
        "max_seqlen_k": int(longest_k),
    }


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
    packed = visual_attn_varlen_func(q[0], k[0], v[0], key_types=types, **packing, **options)
    return packed.out[None], packed.mass[None]


def _types_from_mask(attention_mask: Tensor | None, k: Tensor) -> Tensor | None:
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[1] < k.shape[1]:
        raise ValueError(
            f"attention_mask must be the 2-D padding mask over {k.shape[1]} keys; got shape "
            f"{tuple(attention_mask.shape)}. 'avar' builds causal visibility itself."
        )
    padded = attention_mask[:, : k.shape[1]] == 0
    return torch.where(padded, int(KeyType.PAD), int(KeyType.TEXT)).to(torch.int32)
