"""Launches of the kernels outside the differentiable operator: decoding and column sums."""

from functools import lru_cache

import torch
from torch import Tensor

from ..decoding import MIN_KEYS_PER_SPLIT, is_decoding
from ..types import AttnInputs, AttnParams, CachePrefixes
from .devices import multiprocessors, on_device
from .kernel_decode import visual_attn_decode_kernel, visual_attn_decode_merge_kernel
from .kernel_received import attn_received_kernel
from .launch_inputs import LaunchInputs
from .launchers import Launcher
from .tiles import padded_dim

MAX_SPLITS = 128
PROGRAMS_PER_MULTIPROCESSOR = 2


def is_decode(inputs: AttnInputs) -> bool:
    """Whether ``with_kvcache`` takes a call of the differentiable operator."""
    if inputs.packed is not None:
        return False
    _, num_queries, heads, _ = inputs.q.shape
    _, num_keys, kv_heads, _ = inputs.k.shape
    return is_decoding(num_queries, num_keys, heads // kv_heads)


def with_kvcache(
    inputs: AttnInputs,
    params: AttnParams,
    cache_seqlens: Tensor | None,
    block_table: Tensor | None,
    prefixes: CachePrefixes | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, mass, lse of few queries on a cache; arguments already validated."""
    q, k_cache, v_cache, _, *tables, _, _ = inputs
    call = LaunchInputs(inputs, params, decoding=True)
    batch, num_rows, heads, _ = q.shape
    page_size = 0 if block_table is None else k_cache.shape[1]
    capacity = k_cache.shape[1] if block_table is None else block_table.shape[1] * page_size
    group, value_dim = heads // call.kv_heads, v_cache.shape[-1]
    tile = call.prepared.tile("decode")
    block_m = min(padded_dim(num_rows * group), tile.block_m)
    row_blocks = -(-num_rows * group // block_m)
    splits, keys_per_split = split_keys(
        capacity, row_blocks * call.kv_heads * batch, tile.block_n, multiprocessors(q.device)
    )
    shared = None
    if prefixes is not None:
        of_prefixes = AttnInputs(q, prefixes.k, prefixes.v, prefixes.key_types, *tables)
        read_by_all = params._replace(causal=False)
        shared = _SharedKeys(LaunchInputs(of_prefixes, read_by_all, decoding=True), prefixes)
    num_slots = splits + (0 if shared is None else shared.splits)
    single = {"dtype": torch.float32, "device": q.device}
    out = q.new_empty(batch, num_rows, heads, value_dim)
    mass = torch.empty(batch, num_rows, heads, params.num_types, **single)
    lse = torch.empty(batch, heads, num_rows, **single)
    if 0 in (batch, num_rows):
        return out, mass, lse
    parts = (batch, heads, num_rows, num_slots)
    part_out = torch.empty(*parts, value_dim, **single)
    part_mass = torch.empty(*parts, 16, **single)
    part_lse = torch.empty(parts, **single)
    partial = (part_out, part_mass, part_lse)
    tensors = (
        *call.tensors(), call.or_any(cache_seqlens), call.or_any(block_table), q, q, *partial,
    )  # fmt: skip
    numbers = (
        params.softmax_scale, num_rows, capacity, group, keys_per_split, splits, num_slots, 0,
        call.left, call.right,
        *call.strides(call.q, call.k, call.v), capacity,
    )  # fmt: skip
    decode = call.prepared.decode_launcher(
        visual_attn_decode_kernel, cache_seqlens is not None, page_size, block_m
    )
    merge = _merge_launcher(
        params.num_types, value_dim, MAX_SPLITS if shared is None else 2 * MAX_SPLITS
    )
    with on_device(q):
        decode((row_blocks * splits, call.kv_heads, batch), tensors, numbers)
        if shared is not None:
            shared.launch(partial, params.softmax_scale, num_slots, first_slot=splits)
        merge((num_rows, heads, batch), (*partial, out, mass, lse), (num_rows, num_slots))
    return out, mass, lse


class _SharedKeys:
    """The launch that reads the keys of prefixes, each for all sequences that share it."""

    def __init__(self, call: LaunchInputs, prefixes: CachePrefixes) -> None:
        self.call, self.prefixes = call, prefixes
        self.tile = call.prepared.tile("decode")
        group = call.heads // call.kv_heads
        # As many row blocks as if all sequences shared one prefix; those past the end do nothing.
        self.row_blocks = -(-call.batch * call.rows * group // self.tile.block_m)
        self.splits, self.keys_per_split = split_keys(
            call.max_keys,
            self.row_blocks * call.kv_heads,
            self.tile.block_n,
            multiprocessors(call.q.device),
        )

    def launch(
        self, partial: tuple[Tensor, ...], softmax_scale: float, num_slots: int, first_slot: int
    ) -> None:
        """Writes the partial results of its stretches from ``first_slot`` on."""
        call, prefixes = self.call, self.prefixes
        tensors = (*call.tensors(), call.q, call.q, prefixes.order, prefixes.offsets, *partial)
        numbers = (
            softmax_scale, call.rows, call.max_keys, call.heads // call.kv_heads,
            self.keys_per_split, self.splits, num_slots, first_slot, call.left, call.right,
            *call.strides(call.q, call.k, call.v), call.max_keys,
        )  # fmt: skip
        decode = call.prepared.decode_launcher(
            visual_attn_decode_kernel, False, 0, self.tile.block_m, shared=True
        )
        grid = (self.row_blocks * self.splits, call.kv_heads, len(prefixes.k) + 1)
        decode(grid, tensors, numbers)


@lru_cache(maxsize=64)
def _merge_launcher(num_types: int, value_dim: int, max_splits: int) -> Launcher:
    constexprs = {
        "NUM_TYPES": num_types,
        "VALUE_DIM": value_dim,
        "BLOCK_DV": padded_dim(value_dim),
        "MAX_SPLITS": max_splits,
    }
    return Launcher(visual_attn_decode_merge_kernel, constexprs, num_warps=4)


@lru_cache(maxsize=1024)
def split_keys(capacity: int, programs: int, block_n: int, multiprocessors: int) -> tuple[int, int]:
    """(number of stretches, keys in each), from shapes alone.

    There are enough stretches to fill the device, but none has fewer than ``MIN_KEYS_PER_SPLIT``
    keys."""
    wanted = -(-PROGRAMS_PER_MULTIPROCESSOR * multiprocessors // max(programs, 1))
    most = max(1, capacity // MIN_KEYS_PER_SPLIT)
    splits = max(1, min(wanted, most, MAX_SPLITS))
    keys_per_split = -(-capacity // splits)
    keys = max(-(-keys_per_split // block_n), 1) * block_n
    return max(1, -(-capacity // keys)), keys


def received(inputs: AttnInputs, params: AttnParams, lse: Tensor, query_weight: Tensor) -> Tensor:
    """Column sums (B, Lk, H), or packed (Tk, H); query_weight is (B, Lq, H) or (Tq, H)."""
    q, k, *_ = inputs
    call = LaunchInputs(inputs, params)
    shape = (*k.shape[:-2], call.heads)
    result = torch.zeros(shape, dtype=torch.float32, device=q.device)
    tile = call.prepared.tile("received")
    grid = (-(-call.max_keys // tile.block_n), call.heads, call.num_sequences)
    if 0 in grid:
        return result
    lse = lse.float().contiguous()

    def batch_stride(x: Tensor) -> int:
        return 0 if call.packed else x.stride(0)

    q, k, _, *optional = call.tensors()
    tensors = (q, k, *optional, *call.offsets(), lse, query_weight, result)
    numbers = (
        *call.numbers(),
        *call.strides(q, k),
        batch_stride(lse), lse.stride(-2),
        batch_stride(query_weight), query_weight.stride(-2), query_weight.stride(-1),
        batch_stride(result), call.types_stride,
    )  # fmt: skip
    with on_device(q):
        call.prepared.launcher("received", attn_received_kernel)(grid, tensors, numbers)
    return result
