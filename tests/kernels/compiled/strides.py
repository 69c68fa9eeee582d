"""Tensors that lie far apart in memory: offsets in elements that do not fit 32 bits."""

import torch
from torch import Tensor

from ..triton_backend.cases import Case, make_inputs

_CASE = Case(
    rows=150, keys=150, batch=2, heads=2, kv_heads=2, head_dim=64, value_dim=64, run=70,
    causal=True, bias=0, scale=0,
)  # fmt: skip
_HEADS, _DIM = _CASE.kv_heads, _CASE.head_dim
# (batch stride, row stride, head stride) in elements. A tile's offsets must fit 32 bits, so the
# launcher copies tensors with longer rows than the one here.
FAR_STRIDES = {
    "batches": (2**31 + 4096, _HEADS * _DIM, _DIM),
    "rows": (_DIM * _HEADS, 8_000_000, _DIM),
    "heads": (400 * _HEADS * _DIM, _HEADS * _DIM, 2**31 + 64),
}
_BYTES_PER_ELEMENT = 2
_empty = torch.empty  # tests replace torch.empty by one that writes everywhere


def far_apart(which: str, dtype: str) -> tuple[dict[str, Tensor | None], dict]:
    """Inputs and options of a call whose q, k, v have the strides ``which``; half precision.

    The storage is allocated and hardly touched, so it takes address space, not memory.
    """
    x, options = make_inputs(which, Case(**{**vars(_CASE), "dtype": dtype}))
    strides = (*FAR_STRIDES[which], 1)
    for name in "qkv":
        dense = x[name]
        assert dense is not None
        assert dense.element_size() == _BYTES_PER_ELEMENT
        length = 1 + sum((n - 1) * stride for n, stride in zip(dense.shape, strides, strict=True))
        x[name] = _empty(length, dtype=dense.dtype).as_strided(dense.shape, strides).copy_(dense)
    return x, options
