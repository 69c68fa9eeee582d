"""Allocates and launches; no validation, and nothing here waits for the device.

Every launch lists its tensors and then its numbers, in the order of the kernel's own list.
"""

import torch
from torch import Tensor

from ..types import AttnGrads, AttnOutput
from .devices import on_device
from .kernel_dkdv import visual_attn_bwd_dkdv_kernel
from .kernel_dq import visual_attn_bwd_dq_kernel, visual_attn_bwd_stats_kernel
from .kernel_forward import visual_attn_fwd_kernel
from .launch_inputs import LaunchInputs, addressable


def forward(call: LaunchInputs) -> AttnOutput:
    """out, mass, lse of a call."""
    *leading, rows, heads, _ = call.q.shape
    tile = call.prepared.tile("forward")
    out = call.new((*leading, rows, heads, call.variant.value_dim), call.q.dtype)
    mass = call.new((*leading, rows, heads, call.variant.num_types), torch.float32)
    lse = call.new((*leading, heads, rows), torch.float32, float("-inf"))
    grid = (-(-call.max_rows // tile.block_m), heads, call.num_sequences)
    if 0 not in grid:
        lists, lists_stride = call.key_lists(tile.block_n)
        tensors = (
            *call.tensors(), lists, *call.offsets(), call.or_any(call.prefix_index), out, mass, lse,
        )  # fmt: skip
        numbers = (
            *call.numbers(), lists_stride,
            *call.strides(call.q, call.k, call.v, out), *call.row_strides(), call.types_stride,
        )  # fmt: skip
        with on_device(call.q):
            call.prepared.launcher("forward", visual_attn_fwd_kernel)(grid, tensors, numbers)
    return AttnOutput(out, mass, lse)


def backward(call: LaunchInputs, grads: AttnOutput, outputs: AttnOutput) -> AttnGrads:
    """Gradients of the inputs; None for a type table that the call does not have."""
    dout = addressable(grads.out.to(call.q.dtype))
    with on_device(call.q):
        stats = _row_stats(call, dout, grads, outputs)
        strides = (*call.strides(call.q, call.k, call.v, dout), *_stats_strides(call, stats))
        dq = _dq(call, dout, stats, strides)
        return AttnGrads(dq, *_dkdv(call, dout, stats, strides))


def _row_stats(call: LaunchInputs, dout: Tensor, grads: AttnOutput, outputs: AttnOutput) -> Tensor:
    """(B, H, 1 + channels, rows) from the statistics kernel."""
    channels = call.variant.num_types if call.variant.has_types else 1
    shape = (call.batch, call.heads, 1 + channels, call.rows)
    stats = torch.empty(shape, dtype=torch.float32, device=call.q.device)
    block_m = call.prepared.tile("stats").block_m
    grid = (-(-call.rows // block_m), call.heads, call.batch)
    if 0 not in grid:
        out = addressable(outputs.out)
        tensors = (
            out, outputs.mass.contiguous(), outputs.lse.contiguous(),
            dout, grads.mass.float().contiguous(), grads.lse.float().contiguous(), stats,
        )  # fmt: skip
        numbers = (
            call.rows,
            *call.strides(out, dout), *call.row_strides(), *_stats_strides(call, stats),
        )  # fmt: skip
        call.prepared.launcher("stats", visual_attn_bwd_stats_kernel)(grid, tensors, numbers)
    return stats


def _stats_strides(call: LaunchInputs, stats: Tensor) -> tuple[int, int, int]:
    """Batch, head and channel strides."""
    batch, head, channel, _ = stats.stride()
    return 0 if call.packed else batch, head, channel


def _dq(call: LaunchInputs, dout: Tensor, stats: Tensor, strides: tuple[int, ...]) -> Tensor:
    tile = call.prepared.tile("dq")
    dq = call.new(tuple(call.q.shape), call.q.dtype)
    grid = (-(-call.max_rows // tile.block_m), call.heads, call.num_sequences)
    if 0 not in grid:
        lists, lists_stride = call.key_lists(tile.block_n)
        prefix_index = call.or_any(call.prefix_index)
        tensors = (*call.tensors(), lists, *call.offsets(), prefix_index, dout, stats, dq)
        numbers = (*call.numbers(), lists_stride, *strides, *call.strides(dq), call.types_stride)
        call.prepared.launcher("dq", visual_attn_bwd_dq_kernel)(grid, tensors, numbers)
    return dq


def _dkdv(
    call: LaunchInputs, dout: Tensor, stats: Tensor, strides: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    dk = call.new(tuple(call.k.shape), call.q.dtype)
    dv = call.new(tuple(call.v.shape), call.q.dtype)
    num_blocks = -(-call.max_keys // call.prepared.tile("dkdv").block_n)
    grid = (num_blocks, call.kv_heads, call.num_sequences)
    # A sequence reads its own keys and those of at most one prefix.
    readings = call.num_sequences * (1 if call.prefix_index is None else 2)
    parts = (readings, num_blocks, call.heads, 2, 16)
    # Zeros: a program that has no query block of a class writes nothing.
    dbias, dscale = (
        None if table is None else torch.zeros(parts, dtype=torch.float32, device=call.q.device)
        for table in (call.bias, call.scale)
    )
    if 0 not in grid:
        tensors = (
            *call.tensors(), *call.offsets(), *call.readers(), dout, stats, dk, dv,
            call.or_any(dbias), call.or_any(dscale),
        )  # fmt: skip
        numbers = (*call.numbers(), *strides, *call.strides(dk, dv), call.types_stride)
        call.prepared.launcher("dkdv", visual_attn_bwd_dkdv_kernel)(grid, tensors, numbers)
    return dk, dv, _reduced(call, dbias), _reduced(call, dscale)


def _reduced(call: LaunchInputs, parts: Tensor | None) -> Tensor | None:
    """(readings, key blocks, H, 2, 16) -> (H, num_types), added up in a fixed order."""
    return None if parts is None else parts.sum((0, 1, 3))[:, : call.variant.num_types].contiguous()
