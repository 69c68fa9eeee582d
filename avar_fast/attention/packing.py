"""Finds samples that are packed into one row, by offsets or by positions that restart."""

from typing import Any

import torch
from torch import Tensor

from .refusal import refuse

PACKING_ARGUMENTS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
PREFIX_ARGUMENT = "prefix_index"
_REMEDY = f"Pass {', '.join(PACKING_ARGUMENTS[:3])} and {PACKING_ARGUMENTS[3]}."


def packing_of(kwargs: dict[str, Any], batch_size: int) -> dict[str, Any] | None:
    """The offsets of samples packed into one row, under the kernels' argument names, and their
    prefixes if they have any; None without packing.

    Raises:
        ValueError: only some of the packing arguments are given, or there is more than one row.
    """
    missing = [name for name in PACKING_ARGUMENTS if kwargs.get(name) is None]
    prefixes = kwargs.get(PREFIX_ARGUMENT)
    if len(missing) == len(PACKING_ARGUMENTS) and prefixes is None:
        return None
    if missing or batch_size != 1:
        lacking = f" without {', '.join(missing)}" if missing else ""
        raise ValueError(
            f"packed samples need a batch of one row and {', '.join(PACKING_ARGUMENTS)}; got"
            f" {batch_size} rows{lacking}. Lay the samples end to end in one row, or pad them and"
            " pass attention_mask."
        )
    cu_q, cu_k, longest_q, longest_k = (kwargs[name] for name in PACKING_ARGUMENTS)
    return {
        "cu_seqlens_q": cu_q,
        "cu_seqlens_k": cu_k,
        "max_seqlen_q": int(longest_q),
        "max_seqlen_k": int(longest_k),
        **({} if prefixes is None else {PREFIX_ARGUMENT: prefixes}),
    }


def packing_by_positions(
    position_ids: Tensor, mask: Tensor | None, batch_size: int, num_keys: int
) -> dict[str, Any] | None:
    """The offsets of samples in rows laid end to end, under the kernels' argument names; None if
    every row is one sample.

    A sample begins where the text position does not grow. transformers' masks and its flash
    attention begin a sample there too, as far as they agree. Positions on which they disagree are
    an error.

    Args:
        position_ids: (B or 1, L) text positions of the queries.
        mask: (B, keys), zero where padded, or None.
        batch_size: rows of the batch.
        num_keys: keys of each row.

    Raises:
        ValueError: samples cannot be separated because of padding, cached keys or rotary
            positions, or positions leap.
    """
    length = position_ids.shape[-1]
    separable = mask is None and length == num_keys and position_ids.dim() == 2
    if length == 1 or not separable:
        refuse_packing(position_ids, mask, num_keys)
        return None
    starts = _restarts(position_ids, None)
    if not starts.any():
        refuse_packing(position_ids, mask, num_keys)
        return None
    first = torch.cat([torch.ones_like(starts[:, :1]), starts], dim=1).expand(batch_size, -1)
    begins = first.flatten().nonzero().flatten().int()
    offsets = torch.cat([begins, begins.new_tensor([batch_size * length])])
    longest = int(offsets.diff().max())
    return {
        "cu_seqlens_q": offsets,
        "cu_seqlens_k": offsets,
        "max_seqlen_q": longest,
        "max_seqlen_k": longest,
    }


def refuse_packing(
    position_ids: Tensor, mask: Tensor | None, num_keys: int, may_fall: bool = False
) -> None:
    """Raises ValueError if positions indicate packed samples. Without offsets nothing would
    separate the samples, and they would silently attend to each other.

    Args:
        position_ids: (B or 1, L) or (4, B, L), whose first row counts tokens; or (1 or 3, B, L)
            rotary positions.
        mask: (B, keys), zero where padded, or None.
        num_keys: keys of each row.
        may_fall: whether the input has a video, after which rotary positions may decrease.

    Raises:
        ValueError: positions restart, or leap so that their meaning is unclear. On a GPU it is a
            device-side assertion, because reading a value there would stall every forward.
    """
    length = position_ids.shape[-1]
    if length == 1:  # a decoding step, which must not wait for the device
        return
    real = None if mask is None else mask[:, -length:]
    refuse(
        _restarts(position_ids, real, may_fall).any(),
        "position_ids restart inside a row, which means packed samples; 'avar' separates them by"
        f" offsets here. {_REMEDY}",
    )
    text = _text_positions(position_ids)
    if text is None or mask is not None or length != num_keys:
        return
    refuse(
        (text[:, 1:] > text[:, :-1] + 1).any(),
        "position_ids leap inside a row: some attentions of transformers take that for another"
        f" sample, others do not. {_REMEDY}",
    )


def _restarts(position_ids: Tensor, real: Tensor | None, may_fall: bool = False) -> Tensor:
    """(B or 1, L - 1) bool: for all tokens but the first, whether the positions restart there. The
    token and the one before it must not be padding."""
    text = _text_positions(position_ids)
    if text is not None:
        restarts = text[:, 1:] <= text[:, :-1]
    else:  # tokens of an image share positions, but never that of the row's first token
        least = position_ids
        if real is not None:
            least = least.masked_fill(real == 0, torch.iinfo(least.dtype).max)
        restarts = (position_ids == least.amin(dim=-1, keepdim=True)).all(dim=0)[:, 1:]
        if not may_fall:
            restarts = restarts | (position_ids[0, :, 1:] < position_ids[0, :, :-1])
    if real is not None:
        restarts = restarts & (real[:, 1:] != 0) & (real[:, :-1] != 0)
    return restarts


def _text_positions(position_ids: Tensor) -> Tensor | None:
    """The text positions, which count tokens; None if there are only rotary positions."""
    if position_ids.dim() == 2:
        return position_ids
    return position_ids[0] if position_ids.shape[0] == 4 else None
