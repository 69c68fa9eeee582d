"""Which keys exist: the mask function that transformers calls, and readers of masks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    mask_function: Callable[..., Any] | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """transformers' mask interface for "avar", whose kernels build causal visibility themselves.

    A preallocated cache passes more slots to the layers than it has keys. The layers must not
    attend to the slots that were never written, so the shape of the mask gives their number,
    without a copy and without waiting for the device.

    Args:
        batch_size, q_length, kv_length, q_offset, kv_offset: sizes and offsets of the layers'
            queries and keys; ``q_offset`` is a tensor if the cache counts in one.
        attention_mask: the model's (B, L) bool argument; columns after the last token are ignored.
        mask_function: the visibility that the model wants.
        local_size: size of the layer's window or chunk, if it has one.
        use_vmap: whether the model changes the mask with its own function.

    Returns:
        None if every key exists; (B, keys) bool, true for existing keys; or, if the cache passes
        ``surplus`` slots after the keys, (B, 1, 1 + surplus, keys). transformers does not change a
        mask of four dimensions.

    Raises:
        NotImplementedError: a window or chunk is shorter than the tokens, or the model has its own
            mask function.
        ValueError: the attention mask does not cover all tokens.
    """
    # Only transformers' functions for bidirectional masks pass this argument.
    causal = "allow_is_bidirectional_skip" not in kwargs
    num_keys = int(q_offset) + q_length - kv_offset if causal else kv_length
    if local_size is not None and num_keys + kv_offset > local_size:
        raise NotImplementedError(
            "sliding-window and chunked attention are not supported with 'avar'; got"
            f" {num_keys + kv_offset} tokens in layers that see {local_size}. Set"
            " use_sliding_window=False, or use another attn_implementation."
        )
    if use_vmap or _has_exceptions(mask_function):
        raise NotImplementedError(
            "masks of a model's own (or_mask_function, and_mask_function, block_sequence_ids) are"
            " not supported with 'avar', which is causal or bidirectional. Use another"
            " attn_implementation."
        )
    surplus = kv_length - num_keys
    if attention_mask is None:
        if not surplus:
            return None
        mask = torch.ones(batch_size, num_keys, dtype=torch.bool, device=device)
    else:
        mask = _over_tokens(attention_mask, kv_offset, num_keys)
        if not surplus:
            return None if mask.all() else mask
    return mask[:, None, None].expand(batch_size, 1, 1 + surplus, num_keys)


def _has_exceptions(mask_function: Any) -> bool:
    """Whether keys are visible by an exception, such as image tokens that see later ones. The mask
    of transformers is then a union (``or_masks``), perhaps inside other functions."""
    if isinstance(mask_function, tuple | list):
        return any(map(_has_exceptions, mask_function))
    if getattr(mask_function, "__qualname__", "").startswith("or_masks."):
        return True
    cells = getattr(mask_function, "__closure__", None) or ()
    return any(_has_exceptions(cell.cell_contents) for cell in cells)


def existing_keys(attention_mask: Tensor | None, num_slots: int) -> tuple[int, Tensor | None]:
    """The number of keys among a layer's slots, and the (B, keys) mask of existing keys, or None if
    all exist.

    Raises:
        ValueError: ``padding_mask`` did not make this mask for these slots.
    """
    if attention_mask is None:
        return num_slots, None
    shape = tuple(attention_mask.shape)
    mask, covered = attention_mask, shape[-1]
    if len(shape) == 4 and shape[1] == 1 and mask.dtype == torch.bool:
        mask, covered = mask[:, 0, 0], shape[-1] + shape[-2] - 1
    if mask.dim() != 2 or covered != num_slots:
        raise ValueError(
            f"attention_mask must be the 2-D padding mask over {num_slots} keys; got shape {shape}."
            " 'avar' builds causal visibility itself."
        )
    return mask.shape[1], mask


def _over_tokens(attention_mask: Tensor, kv_offset: int, num_keys: int) -> Tensor:
    width = kv_offset + num_keys
    if attention_mask.dim() != 2 or attention_mask.shape[1] < width:
        raise ValueError(
            f"attention_mask must be 2-D over all {width} tokens, the cached ones included; got"
            f" shape {tuple(attention_mask.shape)}."
        )
    return attention_mask[:, kv_offset:width]


def known_padding(attention_mask: Any, ids: Tensor, slots: int | None) -> Tensor | None:
    """The (B, L) padding mask over cached and new tokens, from the model's attention_mask."""
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


def is_causal(tower: nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether every layer is causal; others need the real mask."""
    if kwargs.get("is_causal") is False:
        return False
    layers: Any = tower.layers
    attention = (getattr(layer, "self_attn", None) for layer in layers)
    return all(getattr(module, "is_causal", True) for module in attention)


def recurrent_mask(kwargs: dict[str, Any]) -> Tensor | None:
    """The (B, L) mask of the new tokens that recurrent layers multiply their inputs by; None if
    none of them is padding."""
    mask, length = kwargs.get("attention_mask"), kwargs["inputs_embeds"].shape[1]
    if isinstance(mask, dict):
        mask = mask.get("linear_attention")
    if mask is None or length == 1:  # a token that is decoded is never padding
        return None
    if mask.dim() != 2:
        raise ValueError(
            "attention_mask must be 2-D for a model with recurrent layers; got shape"
            f" {tuple(mask.shape)}."
        )
    return mask[:, -length:]
