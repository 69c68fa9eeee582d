"""Launches of the kernels outside the differentiable operator: decoding and column sums."""

import torch
import triton
from torch import Tensor

from ..types import AttnParams, PackedLengths
from .call import Call
from .kernel_decode import visual_attn_decode_kernel, visual_attn_decode_merge_kernel
from .kernel_received import attn_received_kernel
from .launch import on_device
from .tiles import padded_dim

MAX_SPLITS = 128
DECODE_ROWS = 32
MIN_KEYS_PER_SPLIT = 256
PROGRAMS_PER_MULTIPROCESSOR = 2


def is_decode(q: Tensor, k: Tensor) -> bool:
    """Whether splitting the keys pays: few queries per key head, on many keys."""
    rows = q.shape[1] * q.shape[2] // k.shape[2]
    return rows <= DECODE_ROWS and k.shape[1] >= 4 * MIN_KEYS_PER_SPLIT


def with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    cache_seqlens: Tensor | None,
    block_table: Tensor | None,
    params: AttnParams,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, mass, lse of few queries on a cache; arguments already validated."""
    call = Call(q, k_cache, v_cache, key_types, type_bias, type_scale, params, None)
    batch, num_rows, heads, _ = q.shape
    page_size = 0 if block_table is None else k_cache.shape[1]
    capacity = k_cache.shape[1] if block_table is None else block_table.shape[1] * page_size
    group, value_dim = heads // call.kv_heads, v_cache.shape[-1]
    tile = call.variant.tile("decode")
    block_m = min(max(16, triton.next_power_of_2(num_rows * group)), tile.block_m)
    row_blocks = triton.cdiv(num_rows * group, block_m)
    splits, keys_per_split = split_keys(
        capacity, row_blocks * call.kv_heads * batch, tile.block_n, _multiprocessors(q.device)
    )
    single = {"dtype": torch.float32, "device": q.device}
    out = q.new_empty(batch, num_rows, heads, value_dim)
    mass = torch.empty(batch, num_rows, heads, params.num_types, **single)
    lse = torch.empty(batch, heads, num_rows, **single)
    if 0 in (batch, num_rows):
        return out, mass, lse
    parts = (batch, heads, num_rows, splits)
    part_out = torch.empty(*parts, value_dim, **single)
    part_mass = torch.empty(*parts, 16, **single)
    part_lse = torch.empty(parts, **single)
    variant = call.variant
    with on_device(q):
        visual_attn_decode_kernel[(row_blocks * splits, call.kv_heads, batch)](
            call.q, call.k, call.v,
            call.or_dummy(call.types), call.or_dummy(call.bias), call.or_dummy(call.scale),
            call.or_dummy(cache_seqlens), call.or_dummy(block_table),
            part_out, part_mass, part_lse,
            params.softmax_scale, num_rows, capacity, group, keys_per_split, splits,
            call.left, call.right,
            *call.strides("q", call.q).values(),
            *call.strides("k", call.k).values(),
            *call.strides("v", call.v).values(),
            capacity,
            **variant.decode_constexprs(cache_seqlens is not None, page_size, block_m),
            num_warps=tile.num_warps, num_stages=tile.num_stages,
        )  # fmt: skip
        visual_attn_decode_merge_kernel[(num_rows, heads, batch)](
            part_out, part_mass, part_lse, out, mass, lse, num_rows, splits,
            NUM_TYPES=params.num_types, VALUE_DIM=value_dim, BLOCK_DV=padded_dim(value_dim),
            MAX_SPLITS=MAX_SPLITS, num_warps=4,
        )  # fmt: skip
    return out, mass, lse


def split_keys(capacity: int, programs: int, block_n: int, multiprocessors: int) -> tuple[int, int]:
    """(number of stretches, keys in each), from shapes alone: enough programs to fill the device,
    but no stretch under ``MIN_KEYS_PER_SPLIT`` keys."""
    wanted = triton.cdiv(PROGRAMS_PER_MULTIPROCESSOR * multiprocessors, max(programs, 1))
    most = max(1, capacity // MIN_KEYS_PER_SPLIT)
    splits = max(1, min(wanted, most, MAX_SPLITS))
    keys = max(triton.cdiv(triton.cdiv(capacity, splits), block_n), 1) * block_n
    return max(1, triton.cdiv(capacity, keys)), keys


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4  # Triton's interpreter: a few stretches, so that tests merge some
    return torch.cuda.get_device_properties(device).multi_processor_count


def received(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    query_weight: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    params: AttnParams,
    packed: PackedLengths | None,
) -> Tensor:
    """Column sums (B, Lk, H), or packed (Tk, H); query_weight is (B, Lq, H) or (Tq, H)."""
    call = Call(q, k, k, key_types, type_bias, type_scale, params, packed)
    shape = (*k.shape[:-2], call.heads)
    result = torch.zeros(shape, dtype=torch.float32, device=q.device)
    tile = call.variant.tile("received")
    grid = (triton.cdiv(call.max_keys, tile.block_n), call.heads, call.num_sequences)
    if 0 in grid:
        return result
    lse = lse.float().contiguous()
    batch_stride = (lambda x: 0) if call.packed else (lambda x: x.stride(0))
    constexprs = call.variant.constexprs("received")
    with on_device(q):
        attn_received_kernel[grid](
            call.q, call.k,
            call.or_dummy(call.types), call.or_dummy(call.bias), call.or_dummy(call.scale),
            call.or_dummy(call.cu_q), call.or_dummy(call.cu_k),
            lse, query_weight, result,
            call.softmax_scale, call.max_rows, call.max_keys, call.heads // call.kv_heads,
            call.left, call.right,
            *call.strides("q", call.q).values(),
            *call.strides("k", call.k).values(),
            batch_stride(lse), lse.stride(-2),
            batch_stride(query_weight), query_weight.stride(-2), query_weight.stride(-1),
            batch_stride(result),
            0 if call.packed else k.shape[1],
            **constexprs,
            num_warps=tile.num_warps, num_stages=tile.num_stages,
        )  # fmt: skip
    return result
