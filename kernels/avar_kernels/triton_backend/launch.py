"""Allocates and launches; no validation, and nothing here waits for the device."""

import contextlib

import torch
import triton
from torch import Tensor

from ..types import AttnGrads, AttnOutput
from .kernel_dkdv import visual_attn_bwd_dkdv_kernel
from .kernel_dq import visual_attn_bwd_dq_kernel, visual_attn_bwd_stats_kernel
from .kernel_forward import visual_attn_fwd_kernel
from .launch_inputs import LaunchInputs, addressable


def forward(call: LaunchInputs) -> AttnOutput:
    """out, mass, lse of a call."""
    leading = call.q.shape[:-2]
    heads, variant = call.heads, call.variant
    out = call.new((*leading, heads, variant.value_dim), call.q.dtype)
    mass = call.new((*leading, heads, variant.num_types), torch.float32)
    lse = call.new((*leading[:-1], heads, leading[-1]), torch.float32, float("-inf"))
    grid = (triton.cdiv(call.max_rows, variant.tile("forward").block_m), heads, call.num_sequences)
    if 0 not in grid:
        with on_device(call.q):
            visual_attn_fwd_kernel[grid](
                **call.arguments("forward"),
                **call.key_lists("forward"),
                **call.strides("o", out),
                **call.row_strides(),
                out_ptr=out,
                mass_ptr=mass,
                lse_ptr=lse,
            )
    return AttnOutput(out, mass, lse)


def backward(call: LaunchInputs, grads: AttnOutput, outputs: AttnOutput) -> AttnGrads:
    """Gradients of the inputs; None for a type table that the call does not have."""
    dout = addressable(grads.out.to(call.q.dtype))
    with on_device(call.q):
        stats = _row_stats(call, dout, grads, outputs)
        dq = _dq(call, dout, stats)
        return AttnGrads(dq, *_dkdv(call, dout, stats))


def _row_stats(
    call: LaunchInputs, dout: Tensor, grads: AttnOutput, outputs: AttnOutput
) -> dict[str, object]:
    """Launches the statistics kernel; returns its result and strides as kernel arguments."""
    channels = call.variant.num_types if call.variant.has_types else 1
    stats = torch.empty(
        call.batch, call.heads, 1 + channels, call.rows, dtype=torch.float32, device=call.q.device
    )
    batch_stride = 0 if call.packed else stats.stride(0)
    strides = {
        "stride_sb": batch_stride,
        "stride_sh": stats.stride(1),
        "stride_sc": stats.stride(2),
    }
    grid = (triton.cdiv(call.rows, call.variant.tile("stats").block_m), call.heads, call.batch)
    out = addressable(outputs.out)
    if 0 not in grid:
        visual_attn_bwd_stats_kernel[grid](
            out,
            outputs.mass.contiguous(),
            outputs.lse.contiguous(),
            dout,
            grads.mass.float().contiguous(),
            grads.lse.float().contiguous(),
            stats,
            call.rows,
            **call.strides("o", out),
            **call.strides("do", dout),
            **call.row_strides(),
            **strides,
            **call.options("stats"),
        )
    return {"stats_ptr": stats, **strides}


def _dq(call: LaunchInputs, dout: Tensor, stats: dict[str, object]) -> Tensor:
    dq = call.new(tuple(call.q.shape), call.q.dtype)
    grid = (
        triton.cdiv(call.max_rows, call.variant.tile("dq").block_m),
        call.heads,
        call.num_sequences,
    )
    if 0 not in grid:
        visual_attn_bwd_dq_kernel[grid](
            **call.arguments("dq"),
            **call.key_lists("dq"),
            **stats,
            **call.strides("do", dout),
            **call.strides("dq", dq),
            dout_ptr=dout,
            dq_ptr=dq,
        )
    return dq


def _dkdv(
    call: LaunchInputs, dout: Tensor, stats: dict[str, object]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    dk = call.new(tuple(call.k.shape), call.q.dtype)
    dv = call.new(tuple(call.v.shape), call.q.dtype)
    num_blocks = triton.cdiv(call.max_keys, call.variant.tile("dkdv").block_n)
    grid = (num_blocks, call.kv_heads, call.num_sequences)
    parts = (call.num_sequences, num_blocks, call.heads, 2, 16)
    # Zeros: a program that has no query block of a class writes nothing.
    dbias = (
        None if call.bias is None else torch.zeros(parts, dtype=torch.float32, device=call.q.device)
    )
    dscale = (
        None
        if call.scale is None
        else torch.zeros(parts, dtype=torch.float32, device=call.q.device)
    )
    if 0 not in grid:
        visual_attn_bwd_dkdv_kernel[grid](
            **call.arguments("dkdv"),
            **stats,
            **call.strides("do", dout),
            **call.strides("dk", dk),
            **call.strides("dv", dv),
            dout_ptr=dout,
            dk_ptr=dk,
            dv_ptr=dv,
            dbias_ptr=call.or_any(dbias),
            dscale_ptr=call.or_any(dscale),
        )
    return dk, dv, _reduced(call, dbias), _reduced(call, dscale)


def _reduced(call: LaunchInputs, parts: Tensor | None) -> Tensor | None:
    """(sequences, key blocks, H, 2, 16) -> (H, num_types), added up in a fixed order."""
    return None if parts is None else parts.sum((0, 1, 3))[:, : call.variant.num_types].contiguous()


def on_device(x: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
