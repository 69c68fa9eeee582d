"""The arguments of a call as the C++ library reads them.

Decoding calls the library once per layer and token, so they are written into one list of numbers
and packed at once, which takes less time than a structure of ctypes.
"""

import struct

import torch
from torch import Tensor

from .types import AttnInputs, AttnOutput, AttnParams

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SHAPES = "isa dtype threads batch heads kv_heads dim value_dim len_q len_k num_sequences"
_OFFSETS = "cu_q cu_k prefix_index order key_lengths continues"
_LIMITS = "num_types causal window_left window_right softmax_scale"
_KEYS = "key_types type_bias type_scale"
_TENSORS = "q k v out mass lse grad_out grad_mass grad_lse dq dk dv"
_TABLE_GRADS = "grad_type_bias grad_type_scale"


def _layout() -> tuple[dict[str, int], struct.Struct]:
    """The place of each field of ``Args`` in csrc/args.h, of eight bytes each, and all of them; a
    tensor has four: its address and three strides."""
    places, codes = {}, ""
    for names, width in (
        (f"{_SHAPES} {_OFFSETS} {_LIMITS} {_KEYS}", 1),
        (_TENSORS, 4),
        (_TABLE_GRADS, 1),
    ):
        for name in names.split():
            places[name] = len(codes)
            codes += "d" if name == "softmax_scale" else "q" * width
    return places, struct.Struct("=" + codes)


_AT, _FORMAT = _layout()
NUM_BYTES = _FORMAT.size


class CpuArguments:
    """The ``Args`` of one call, and the tensors they point to."""

    def __init__(self, inputs: AttnInputs, params: AttnParams, isa: int) -> None:
        q, k, v, key_types, type_bias, type_scale, packed, _ = inputs
        self._kept: list[Tensor] = []
        self._values: list[int | float] = [0] * len(_FORMAT.format[1:])
        num_sequences = 0 if packed is None else packed.cu_seqlens_q.numel() - 1
        shapes = (
            *(isa, _DTYPES[q.dtype], torch.get_num_threads()),
            *(1 if packed else q.shape[0], q.shape[-2], k.shape[-2]),
            *(q.shape[-1], v.shape[-1], q.shape[-3], k.shape[-3], num_sequences),
        )
        self._set("isa", shapes)
        limits = (params.num_types, params.causal, *params.window, params.softmax_scale)
        self._set("num_types", limits)
        if packed is not None:
            self.pointer("cu_q", packed.cu_seqlens_q)
            self.pointer("cu_k", packed.cu_seqlens_k)
            self.pointer("prefix_index", packed.prefix_index)
        if key_types is not None:
            self.pointer("key_types", as_bytes(key_types))
        self.pointer("type_bias", type_bias)
        self.pointer("type_scale", type_scale)
        for name, x in (("q", q), ("k", k), ("v", v)):
            self.tensor(name, x)

    def packed(self) -> bytes:
        """``Args``; they may be used as long as this object lives."""
        return _FORMAT.pack(*self._values)

    def pointer(self, name: str, x: Tensor | None) -> None:
        """Enters the address of a tensor without gaps; null for None."""
        if x is not None:
            x = x.contiguous()
            self._kept.append(x)
            self._values[_AT[name]] = x.data_ptr()

    def tensor(self, name: str, x: Tensor, heads_first: bool = False) -> None:
        """Enters a tensor (B, L, H, n) or (L, H, n); with ``heads_first`` (B, H, L) or (H, L)."""
        if heads_first:
            x = x.transpose(-1, -2)[..., None]
        strides = x.stride()
        if strides[-1] != 1 and x.shape[-1] > 1:
            x = x.contiguous()
            strides = x.stride()
        self._kept.append(x)
        batch = strides[0] if len(strides) == 4 else 0
        self._set(name, (x.data_ptr(), batch, strides[-3], strides[-2]))

    def outputs(self, outputs: AttnOutput) -> None:
        """Enters out, mass and lse."""
        self.tensor("out", outputs.out)
        self.tensor("mass", outputs.mass)
        self.tensor("lse", outputs.lse, heads_first=True)

    def group_queries(self, order: Tensor, offsets: Tensor) -> None:
        """Makes one sequence of all queries whose batches share keys, and see all of them: those of
        key batch p are ``order[offsets[p] : offsets[p + 1]]``."""
        self._values[_AT["num_sequences"]], self._values[_AT["causal"]] = offsets.numel() - 1, 0
        num_queries = self._values[_AT["len_q"]]
        self.pointer("cu_q", offsets if num_queries == 1 else offsets * num_queries)
        self.pointer("order", order)

    def go_on(self, inputs: AttnInputs, params: AttnParams) -> None:
        """Turns the arguments of ``group_queries`` into those of the same queries on the keys of
        their own batches, from the results on the shared keys on."""
        k, v = inputs.k, inputs.v
        changes = {
            "num_sequences": 0, "cu_q": 0, "order": 0, "continues": 1,
            "len_k": k.shape[-3], "causal": params.causal, "key_types": 0,
        }  # fmt: skip
        for name, value in changes.items():
            self._values[_AT[name]] = value
        if inputs.key_types is not None:
            self.pointer("key_types", as_bytes(inputs.key_types))
        self.tensor("k", k)
        self.tensor("v", v)

    def table_grad(self, name: str, table: Tensor | None) -> Tensor | None:
        """Enters a new tensor for the gradient of a table; None where there is no table."""
        if table is None:
            return None
        grad = torch.empty(table.shape, dtype=torch.float32, device=table.device)
        self.pointer(name, grad)
        return grad

    def _set(self, first: str, values: tuple[int | float, ...]) -> None:
        """Enters values from the field ``first`` on."""
        place = _AT[first]
        self._values[place : place + len(values)] = values


def as_bytes(key_types: Tensor) -> Tensor:
    """Key types as the library reads them: int8, all absent keys negative."""
    if key_types.dtype == torch.int8:
        return key_types
    return key_types.clamp(min=-1).to(torch.int8)
