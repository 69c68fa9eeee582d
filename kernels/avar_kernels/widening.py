"""q, k, v of the sdpa backend with extra columns for mass, lse and the gradient of type_bias.

V carries an indicator column per type and a column of ones, K an indicator column per type against
zeros in Q; ``sdpa`` says what they are for. All three get one common width, as torch's CPU kernel
wants it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .types import AttnGrads, AttnInputs, AttnParams

COLUMN_MULTIPLE = 8  # torch's kernels are up to 1.5x slower on widths that are no multiple of 8


class Piece(NamedTuple):
    """One fused call: a range of queries against a range of keys."""

    rows: slice
    keys: slice
    causal: bool = False
    visible: Tensor | None = None  # (rows, keys) bool where a window cuts through
    again: bool = False  # an earlier piece has covered these rows with other keys


class Widened:
    """q, k, v as (B, heads, L, width) with the extra columns described in the module docstring."""

    def __init__(self, inputs: AttnInputs, params: AttnParams) -> None:
        self.inputs, self.params = inputs, params
        q, k, v, key_types, type_bias, type_scale, *_ = inputs
        self.group = q.shape[2] // k.shape[2]
        acc = q.dtype if q.dtype == torch.float64 else torch.float32
        batch, num_keys = k.shape[:2]
        if key_types is None:
            key_types = torch.zeros(batch, num_keys, dtype=torch.long, device=q.device)
        self.channel = key_types.clamp(min=0).long()  # (B, Lk)
        self.exists = key_types >= 0
        types = torch.arange(params.num_types, device=q.device)
        self.one_hot = (key_types[..., None] == types).to(acc)  # (B, Lk, C)
        self.key_bias = None if type_bias is None else self._per_key(type_bias.to(acc))
        self.key_scale = None if type_scale is None else self._per_key(type_scale.to(acc))
        self.visible = self.exists[:, None]  # (B, 1 or H, Lk)
        if self.key_bias is not None and bool(torch.isneginf(self.key_bias).any()):
            self.visible = self.visible & ~torch.isneginf(self.key_bias)
        self.all_visible = bool(self.visible.all())

        used = max(q.shape[-1] + params.num_types, v.shape[-1] + params.num_types + 1)
        self.width = -(-used // COLUMN_MULTIPLE) * COLUMN_MULTIPLE
        absent = ~self.exists[:, :, None, None]
        # Padding may hold anything, NaN included, and 0 * NaN is NaN: it is zeroed first.
        self.plain_k = k.to(acc).masked_fill(absent, 0.0).transpose(1, 2)
        value = v.to(acc).masked_fill(absent, 0.0).transpose(1, 2)
        key = self.plain_k
        if self.key_scale is not None:  # K differs per query head, so neither K nor V can be shared
            key = key.repeat_interleave(self.group, dim=1) * self.key_scale[..., None]
            value = value.repeat_interleave(self.group, dim=1)
        self.q = self._pad(q.to(acc).transpose(1, 2))
        self.k = self._pad(key, self.one_hot)
        self.v = self._pad(value, self.one_hot, torch.ones_like(self.one_hot[..., :1]))

    def _per_key(self, table: Tensor) -> Tensor:
        """(H, C) table -> (B, H, Lk) value of each key."""
        return table[:, self.channel].transpose(0, 1)

    def _pad(self, x: Tensor, *columns: Tensor) -> Tensor:
        """Appends (B, L, n) columns, the same for every head, and zeros up to the common width."""
        batch, heads, length, _ = x.shape
        parts = [x, *(c[:, None].expand(batch, heads, length, c.shape[-1]) for c in columns)]
        filled = sum(part.shape[-1] for part in parts)
        return torch.cat([*parts, x.new_zeros(batch, heads, length, self.width - filled)], dim=-1)

    def join(self, out: Tensor, mass: Tensor, lse: Tensor) -> Tensor:
        """(B, Lq, H, Dv), (B, Lq, H, C), (B, H, Lq) -> (B, H, Lq, width) in V's column order."""
        parts = [out.transpose(1, 2), mass.transpose(1, 2), lse[..., None]]
        return self._pad(torch.cat([part.to(self.q.dtype) for part in parts], dim=-1))

    def mask(self, piece: Piece) -> Tensor | None:
        """(B, H, rows, keys) additive mask, a broadcast view unless a window cuts through."""
        if self.all_visible and self.key_bias is None and piece.visible is None:
            return None
        batch, heads, keys = self.q.shape[0], self.q.shape[1], piece.keys
        num_rows, num_keys = piece.rows.stop - piece.rows.start, keys.stop - keys.start
        mask = self.q.new_zeros(batch, 1, 1, num_keys)
        mask = mask.masked_fill(~self.exists[:, None, None, keys], float("-inf"))
        if self.key_bias is not None:
            mask = mask + self.key_bias[:, :, None, keys]
        if piece.visible is not None:
            mask = mask.masked_fill(~piece.visible, float("-inf"))
        return mask.expand(batch, heads, num_rows, num_keys)

    def sees(self, piece: Piece) -> Tensor | None:
        """(B, 1 or H, rows) bool: which rows see a key of this piece; None when all do."""
        visible = self.visible[:, :, piece.keys]
        if piece.visible is not None:
            return (piece.visible & visible[:, :, None, :]).any(-1)
        if self.all_visible:
            return None
        if piece.causal:
            return visible.cumsum(-1) > 0
        return visible.any(-1)[:, :, None]

    def gradients(self, dq: Tensor, dk: Tensor, dv: Tensor) -> AttnGrads:
        """Strips the extra columns and turns them into the gradients they stand for."""
        q, k, v, *_ = self.inputs
        head_dim, num_types = q.shape[-1], self.params.num_types
        dbias = dscale = None
        if self.key_bias is not None:
            columns = dq[..., head_dim : head_dim + num_types]
            dbias = columns.sum(dim=(0, 2)) / self.params.softmax_scale
        dk = dk[..., :head_dim]
        if self.key_scale is not None:
            by_group = dk.unflatten(1, (-1, self.group))  # (B, Hkv, G, Lk, D)
            per_key = (by_group * self.plain_k[:, :, None]).sum(-1).flatten(1, 2)  # (B, H, Lk)
            dscale = torch.einsum("bhk,bkc->hc", per_key, self.one_hot)
            dk = (dk * self.key_scale[..., None]).unflatten(1, (-1, self.group)).sum(2)
            dv = dv.unflatten(1, (-1, self.group)).sum(2)
        dq = rows_first(dq[..., :head_dim], q.dtype)
        dv = rows_first(dv[..., : v.shape[-1]], v.dtype)
        return AttnGrads(dq, rows_first(dk, k.dtype), dv, dbias, dscale)


def rows_first(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, heads, L, n) -> a new contiguous (B, L, heads, n); operators may not return views."""
    rows = x.transpose(1, 2)
    return torch.empty(rows.shape, dtype=dtype, device=x.device).copy_(rows)
