"""Few queries against a long key-value cache: split over keys, then merged.

    z, P, out, mass, lse as in ``kernel_forward``; query i of n stands at position length - n + i

One program of the first kernel takes one stretch of keys for all query heads of one key head, so K
and V are read once per group; rows of a tile are (head of the group, query). It leaves a float32
partial result that is normalized over its own stretch, with its own lse. The second kernel weights
the stretches by exp(lse_s - lse), which merges out and mass alike. The number of stretches depends
on shapes alone, so nothing waits for the device and results are bitwise reproducible.

Keys of a prefix are read once for all sequences that share it: rows of a tile are then (sequence,
head of the group, query). All of them see all keys. The second kernel merges these stretches with
those of the sequences' own keys.

Layout: q (B, n, H, D); k, v (B, capacity, Hkv, D), or pages (P, page size, Hkv, D) that block_table
(B, pages) int32 lists in order; key types (B, capacity). Partial results (B, H, n, splits, ...).
"""

import triton
import triton.language as tl

from .blocks import LOG2E, sees, types_of
from .kernel_forward import LN2, ROW_MAX_FLOOR, accumulate

MERGE_CHUNK = tl.constexpr(16)  # stretches that the merge holds at a time


@triton.jit
def _cache_offsets(keys, valid, table_ptr, stride_page, stride_l, PAGE_SIZE: tl.constexpr):
    """int64 offset of each key; PAGE_SIZE 0 means one contiguous cache."""
    keys = keys.to(tl.int64)
    if PAGE_SIZE == 0:
        return keys * stride_l
    page = tl.load(table_ptr + keys // PAGE_SIZE, mask=valid, other=0).to(tl.int64)
    return page * stride_page + keys % PAGE_SIZE * stride_l


@triton.jit(
    do_not_specialize=[
        "num_rows", "capacity", "keys_per_split", "num_splits", "num_slots", "first_slot", "left",
        "right", "stride_tb",
    ]
)  # fmt: skip
def visual_attn_decode_kernel(
    q_ptr, k_ptr, v_ptr, types_ptr, bias_ptr, scale_ptr, lengths_ptr, table_ptr,
    order_ptr, offsets_ptr, part_out_ptr, part_mass_ptr, part_lse_ptr,
    softmax_scale, num_rows, capacity, group, keys_per_split, num_splits, num_slots, first_slot,
    left, right,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh,
    stride_vb, stride_vl, stride_vh, stride_tb,
    NUM_TYPES: tl.constexpr, HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HAS_TYPES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    SHARED: tl.constexpr, PAGE_SIZE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Grid (row blocks * splits, Hkv, B); ``num_rows`` is n, the queries per head.

    SHARED: keys are those of P prefixes, and the grid is (row blocks * splits, Hkv, P + 1). Program
    p + 1 of the third axis handles the sequences order[offsets[p] : offsets[p + 1]] of prefix p;
    program 0 those without one, which come first in ``order``."""
    split = tl.program_id(0) % num_splits
    kv_head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    length = capacity
    if HAS_LENGTHS:
        length = tl.load(lengths_ptr + batch)

    tile_first = tl.program_id(0) // num_splits * BLOCK_M
    tile_rows = tile_first + tl.arange(0, BLOCK_M)
    sequences = batch
    if SHARED:
        prefix = tl.program_id(2) - 1
        begin_sharing = tl.load(offsets_ptr + prefix, mask=prefix >= 0, other=0)
        num_sharing = tl.load(offsets_ptr + prefix + 1) - begin_sharing
        if tile_first >= num_sharing * num_rows * group:
            return
        sharing = tile_rows // (num_rows * group)
        tile_rows = tile_rows % (num_rows * group)
        row_exists = sharing < num_sharing
        order_ptrs = order_ptr + begin_sharing + sharing
        sequences = tl.load(order_ptrs, mask=row_exists, other=0).to(tl.int64)
        batch = tl.maximum(prefix, 0).to(tl.int64)
        length = tl.where(prefix < 0, 0, capacity)
    else:
        row_exists = tile_rows < num_rows * group
    rows = tile_rows % num_rows
    heads = kv_head * group + tile_rows // num_rows
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_DV)
    channels = tl.arange(0, 16)
    dim_mask = (dims < HEAD_DIM)[None, :]
    value_mask = (value_dims < VALUE_DIM)[None, :]
    row_offsets = rows.to(tl.int64) * stride_ql + heads.to(tl.int64) * stride_qh
    if SHARED:
        row_offsets += sequences * stride_qb
    else:
        q_ptr += batch * stride_qb
    q_ptrs = q_ptr + row_offsets[:, None] + dims[None, :]
    q = tl.load(q_ptrs, mask=row_exists[:, None] & dim_mask, other=0.0)  # [M, D]

    kv_head_long = kv_head.to(tl.int64)
    k_ptr += kv_head_long * stride_kh
    v_ptr += kv_head_long * stride_vh
    if PAGE_SIZE == 0:
        k_ptr += batch * stride_kb
        v_ptr += batch * stride_vb
    else:
        table_ptr += batch * (capacity // PAGE_SIZE)
    types_ptr += batch * stride_tb

    begin = split * keys_per_split
    stop = tl.minimum(begin + keys_per_split, length)
    if HAS_LEFT:  # whole blocks before the first query's window need not be read
        first_seen = tl.maximum(length - num_rows - left, 0)
        begin = tl.maximum(begin, first_seen // BLOCK_N * BLOCK_N)

    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    mass = tl.zeros([BLOCK_M, 16], tl.float32)
    row_max = tl.full([BLOCK_M], ROW_MAX_FLOOR, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    # Types are loaded one block ahead, so that the load of V, which they mask, is prefetched too.
    following, _ = types_of(types_ptr, begin + tl.arange(0, BLOCK_N), stop, HAS_TYPES)
    for start in range(begin, stop, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        inside = keys < stop
        types = following
        following, _ = types_of(types_ptr, keys + BLOCK_N, stop, HAS_TYPES)
        exists = inside
        if HAS_TYPES:
            exists = types >= 0
        k_offsets = _cache_offsets(keys, inside, table_ptr, stride_kb, stride_kl, PAGE_SIZE)
        k_ptrs = k_ptr + k_offsets[:, None] + dims[None, :]
        # Keys that do not exist need no mask here: their logits are replaced.
        k = tl.load(k_ptrs, mask=inside[:, None] & dim_mask, other=0.0)  # [N, D]
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (softmax_scale * LOG2E)
        tables = heads[:, None] * NUM_TYPES + types[None, :]  # [M, N]
        known = row_exists[:, None] & exists[None, :]
        if HAS_SCALE:
            logits *= tl.load(scale_ptr + tables, mask=known, other=0.0)
        if HAS_BIAS:
            logits += tl.load(bias_ptr + tables, mask=known, other=0.0) * LOG2E
        visible = exists[None, :] & sees(
            rows[:, None], keys[None, :], length - num_rows, left, right, HAS_LEFT, HAS_RIGHT
        )
        logits = tl.where(visible, logits, float("-inf"))
        v_offsets = _cache_offsets(keys, inside, table_ptr, stride_vb, stride_vl, PAGE_SIZE)
        v_ptrs = v_ptr + v_offsets[:, None] + value_dims[None, :]
        # Values of keys that do not exist may be NaN, which no weight of 0 removes.
        v = tl.load(v_ptrs, mask=exists[:, None] & value_mask, other=0.0)  # [N, DV]
        acc, row_max, row_sum, weights, decay = accumulate(
            acc, row_max, row_sum, logits, 0.0, v, 1.0, True, PRECISION
        )
        if HAS_TYPES:
            # Sums instead of a product with the one-hot types: few rows make them cheap, and the
            # product would hold the weights a second time.
            mass *= decay[:, None]
            for channel in tl.static_range(NUM_TYPES):
                of_type = tl.sum(tl.where(types[None, :] == channel, weights, 0.0), 1)  # [M]
                mass += tl.where(channels[None, :] == channel, of_type[:, None], 0.0)

    sees_any = row_sum > 0.0
    inverse = tl.where(sees_any, 1.0 / tl.where(sees_any, row_sum, 1.0), 0.0)
    if not HAS_TYPES:
        mass = tl.where((channels == 0)[None, :], row_sum[:, None], 0.0)
    lse = tl.where(sees_any, row_max + tl.log2(tl.where(sees_any, row_sum, 1.0)), float("-inf"))
    num_heads = tl.num_programs(1) * group
    slots = ((sequences * num_heads + heads) * num_rows + rows) * num_slots  # int64
    slots += first_slot + split
    tl.store(part_lse_ptr + slots, lse, mask=row_exists)
    tl.store(
        part_mass_ptr + slots[:, None] * 16 + channels[None, :], mass * inverse[:, None],
        mask=row_exists[:, None],
    )  # fmt: skip
    tl.store(
        part_out_ptr + slots[:, None] * VALUE_DIM + value_dims[None, :], acc * inverse[:, None],
        mask=row_exists[:, None] & value_mask,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def visual_attn_decode_merge_kernel(
    part_out_ptr, part_mass_ptr, part_lse_ptr, out_ptr, mass_ptr, lse_ptr, num_rows, num_splits,
    NUM_TYPES: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_DV: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
):  # fmt: skip
    """Grid (n, H, B); out (B, n, H, Dv), mass (B, n, H, C) and lse (B, H, n) are contiguous."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    num_heads = tl.num_programs(1)
    first = ((batch * num_heads + head) * num_rows + row) * num_splits
    channels = tl.arange(0, 16)
    value_dims = tl.arange(0, BLOCK_DV)
    value_mask = value_dims < VALUE_DIM

    splits = tl.arange(0, MAX_SPLITS)
    lse = tl.load(part_lse_ptr + first + splits, mask=splits < num_splits, other=float("-inf"))
    largest = tl.maximum(tl.max(lse, 0), ROW_MAX_FLOOR)
    total = tl.sum(tl.exp2(lse - largest), 0)
    inverse = tl.where(total > 0.0, 1.0 / tl.where(total > 0.0, total, 1.0), 0.0)

    out = tl.zeros([BLOCK_DV], tl.float32)
    mass = tl.zeros([16], tl.float32)
    for start in range(0, num_splits, MERGE_CHUNK):
        chunk = start + tl.arange(0, MERGE_CHUNK)
        inside = chunk < num_splits
        part_lse = tl.load(part_lse_ptr + first + chunk, mask=inside, other=float("-inf"))
        share = tl.exp2(part_lse - largest) * inverse  # [S]
        part_out = tl.load(
            part_out_ptr + (first + chunk)[:, None] * VALUE_DIM + value_dims[None, :],
            mask=inside[:, None] & value_mask[None, :], other=0.0,
        )  # fmt: skip
        out += tl.sum(part_out * share[:, None], 0)
        part_mass = tl.load(
            part_mass_ptr + (first + chunk)[:, None] * 16 + channels[None, :],
            mask=inside[:, None], other=0.0,
        )  # fmt: skip
        mass += tl.sum(part_mass * share[:, None], 0)

    token = (batch * num_rows + row) * num_heads + head
    tl.store(out_ptr + token * VALUE_DIM + value_dims, out.to(out_ptr.dtype.element_ty),
             mask=value_mask)  # fmt: skip
    tl.store(mass_ptr + token * NUM_TYPES + channels, mass, mask=channels < NUM_TYPES)
    merged = tl.where(total > 0.0, (largest + tl.log2(tl.where(total > 0.0, total, 1.0))) * LN2,
                      float("-inf"))  # fmt: skip
    tl.store(lse_ptr + (batch * num_heads + head) * num_rows + row, merged)
