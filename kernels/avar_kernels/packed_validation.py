"""Argument checks of packed sequences and their prefixes."""

import torch
from torch import Tensor

from .types import PackedLengths
from .validation import check_integers, check_window, refuse


def packed_or_none(
    cu_seqlens_q: Tensor | None,
    cu_seqlens_k: Tensor | None,
    max_seqlen_q: int | None,
    max_seqlen_k: int | None,
    prefix_index: Tensor | None = None,
) -> PackedLengths | None:
    """The arguments of packed sequences as one, or None if none is given.

    Raises ValueError if some of the first four, or the last alone, are given."""
    lengths = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    given = [x is not None for x in lengths]
    if not all(given) and (any(given) or prefix_index is not None):
        raise ValueError(
            "cu_seqlens_q, cu_seqlens_k, max_seqlen_q and max_seqlen_k must be given together; got"
            f" {sum(given)} of 4. Pass all for packed sequences, none for dense ones."
        )
    if not all(given):
        return None
    return PackedLengths(*lengths, prefix_index)  # pyright: ignore[reportArgumentType]


def check_no_window(window_size: tuple[int, int]) -> None:
    """Raises if a call with prefixes has a window, which has no meaning across two sequences."""
    if check_window(window_size) != (-1, -1):
        refuse(
            "window_size",
            "(-1, -1) with prefix_index",
            window_size,
            "Lay the prefix's keys in front of each sequence's own to use a window.",
        )


def check_packed(packed: PackedLengths, device: torch.device) -> None:
    """Raises unless both offset tensors are int32 of shape (N + 1,) on the device."""
    for name, offsets in (
        ("cu_seqlens_q", packed.cu_seqlens_q),
        ("cu_seqlens_k", packed.cu_seqlens_k),
    ):
        if not isinstance(offsets, Tensor):
            raise TypeError(f"{name} must be an int32 torch.Tensor; got {type(offsets).__name__}.")
        if (
            offsets.dtype != torch.int32
            or offsets.dim() != 1
            or offsets.numel() < 2
            or offsets.device != device
        ):
            refuse(
                name,
                f"int32 of shape [N + 1], N >= 1, on {device}",
                f"{offsets.dtype} of shape {tuple(offsets.shape)} on {offsets.device}",
                f"Use {name}.to(q.device, torch.int32).",
            )
    if packed.cu_seqlens_q.shape != packed.cu_seqlens_k.shape:
        refuse(
            "cu_seqlens_k",
            f"of shape {tuple(packed.cu_seqlens_q.shape)}, as cu_seqlens_q",
            f"shape {tuple(packed.cu_seqlens_k.shape)}",
            "Both must describe the same sequences.",
        )
    if packed.prefix_index is not None:
        num_sequences = packed.cu_seqlens_q.numel() - 1
        check_integers("prefix_index", packed.prefix_index, (num_sequences,), device)
        if packed.prefix_index.dtype != torch.int32:
            raise TypeError(
                f"prefix_index must be int32; got {packed.prefix_index.dtype}. Use"
                " .to(torch.int32)."
            )
    for name, longest in (
        ("max_seqlen_q", packed.max_seqlen_q),
        ("max_seqlen_k", packed.max_seqlen_k),
    ):
        if isinstance(longest, bool) or not isinstance(longest, int):
            raise TypeError(
                f"{name} must be an int, the length of the longest sequence; got"
                f" {type(longest).__name__}."
            )
        if longest < 0:
            refuse(
                name,
                "the length of the longest sequence",
                longest,
                "Pass the maximum of the differences.",
            )
