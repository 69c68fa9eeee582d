"""Allocates and launches; no validation, and nothing here waits for the device.

Every launch lists its tensors and then its numbers, in the order of the kernel's own list.
"""

import math

import torch
from torch import Tensor

from ..types import AttnGrads, AttnOutput
from .devices import multiprocessors, on_device
from .kernel_dkdv import visual_attn_bwd_dkdv_kernel
from .kernel_dq import visual_attn_bwd_dq_kernel, visual_attn_bwd_stats_kernel
from .kernel_forward import visual_attn_fwd_kernel
from .launch_inputs import LaunchInputs, aligned, trimmed

# The programs of the kernel for dk and dv are few and, under a causal mask, of unequal length, so
# each takes a share of its group's heads. On an H100, a share per head more than halves its time at
# 2k tokens; from 16k on none helps.
MOST_PROGRAMS_PER_MULTIPROCESSOR = 6
MOST_SHARES = 15  # Triton compiles a kernel anew for multiples of 16
# Chips with room in shared memory for the float32 tiles of a share.
SHARING_ARCHS = ("sm80", "sm90", "sm100", "interpreter")


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
    return AttnOutput(trimmed(out, call.value_dim), mass, lse)


def backward(call: LaunchInputs, grads: AttnOutput, outputs: AttnOutput) -> AttnGrads:
    """Gradients of the inputs; None for a type table that the call does not have."""
    dout = aligned(grads.out.to(call.q.dtype))
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
        out = aligned(outputs.out)
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
    return trimmed(dq, call.head_dim)


def _dkdv(
    call: LaunchInputs, dout: Tensor, stats: Tensor, strides: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    block_n = call.prepared.tile("dkdv").block_n
    shares = 1
    if call.variant.arch in SHARING_ARCHS:
        num_keys = math.prod(call.k.shape[:-2])  # of all sequences
        programs = -(-num_keys // block_n) * call.kv_heads
        group = call.heads // call.kv_heads
        shares = head_shares(group, programs, multiprocessors(call.q.device))
    dk, dv = (
        call.new(
            (*x.shape[:-2], call.kv_heads * shares, x.shape[-1]),
            call.q.dtype if shares == 1 else torch.float32,
        )
        for x in (call.k, call.v)
    )
    num_blocks = -(-call.max_keys // block_n)
    grid = (num_blocks, call.kv_heads * shares, call.num_sequences)
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
        *first_numbers, left, right = call.numbers()
        numbers = (
            *first_numbers, shares, left, right, *strides, *call.strides(dk, dv), call.types_stride,
        )  # fmt: skip
        call.prepared.launcher("dkdv", visual_attn_bwd_dkdv_kernel)(grid, tensors, numbers)
    if shares > 1:
        dk, dv = (
            x.unflatten(-2, (call.kv_heads, shares)).sum(-2).to(call.q.dtype) for x in (dk, dv)
        )
    tables = _reduced(call, dbias), _reduced(call, dscale)
    return trimmed(dk, call.head_dim), trimmed(dv, call.value_dim), *tables


def head_shares(group: int, programs: int, multiprocessors: int) -> int:
    """In how many shares the query heads of a group are processed, from shapes alone.

    As many as keep the device evenly busy, where one share per group makes ``programs``
    programs."""
    most = MOST_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors // max(programs, 1)
    heads_per_share = -(-group // min(group, max(most, 1), MOST_SHARES))
    return -(-group // heads_per_share)


def _reduced(call: LaunchInputs, parts: Tensor | None) -> Tensor | None:
    """(readings, key blocks, H, 2, 16) -> (H, num_types), added up in a fixed order."""
    return None if parts is None else parts.sum((0, 1, 3))[:, : call.variant.num_types].contiguous()
