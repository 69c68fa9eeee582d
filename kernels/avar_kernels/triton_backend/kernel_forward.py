"""Forward kernel: flash attention over typed keys that also returns the attention mass per type.

    z_ij    = softmax_scale * (q_i . k_j) * type_scale[h, t_j] + type_bias[h, t_j]
    P_ij    = exp(z_ij - lse_i),  lse_i = logsumexp_j z_ij      over visible keys with t_j >= 0
    out_i   = sum_j P_ij v_j,     mass_i[c] = sum_j P_ij [t_j = c]

Layout: q (B, Lq, H, D), k and v (B, Lk, Hkv, D or Dv), with a contiguous last dimension and any
other strides. Packed (T, H, D) is the same with batch stride 0 and sequences found through
cu_seqlens.
lse is contiguous (B, H, Lq), mass contiguous (B, Lq, H, num_types), both float32. One program per
(query block, head, sequence).

Rounding: logits, softmax and sums are float32. P is rounded to v's dtype for the product with v.
For the mass of general blocks it is rounded to float16: P lies in [0, 1], where float16 has three
bits more than bfloat16. The mass of plain blocks is a float32 row sum. Logits below
``ROW_MAX_FLOOR`` count as invisible.
"""

import triton
import triton.language as tl

from .blocks import (
    LOG2E,
    general_block,
    key_block_range,
    listed_block,
    listed_blocks,
    load_tile,
    logit_terms,
    prefix_of,
    sees,
    sequence_of,
    types_of,
)

LN2 = tl.constexpr(0.6931471805599453)
# A finite start for the running maximum: -inf minus -inf never arises, so no row needs a guard.
ROW_MAX_FLOOR = tl.constexpr(-1.0e30)


@triton.jit
def accumulate(
    acc, row_max, row_sum, scores, summand, v, factor,
    SCALED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One online-softmax step on base-2 logits; returns the new state, the weights and the decay.

    The logits are ``scores * factor + summand``; with SCALED the caller has multiplied the scores
    by the factor. It must do so where the factor may be negative, because the maximum of the scores
    is then not that of the logits.
    """
    if SCALED:
        new_max = tl.maximum(row_max, tl.max(scores, 1) + summand)
        weights = tl.exp2(scores - (new_max - summand)[:, None])  # [M, N]
    else:
        new_max = tl.maximum(row_max, tl.max(scores, 1) * factor + summand)
        weights = tl.exp2(scores * factor - (new_max - summand)[:, None])
    decay = tl.exp2(row_max - new_max)
    row_sum = row_sum * decay + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
    return acc, new_max, row_sum, weights, decay


@triton.jit(
    do_not_specialize=[
        "num_rows", "num_keys", "left", "right", "lists_stride", "stride_mb", "stride_lb",
        "stride_lh", "stride_tb",
    ]
)  # fmt: skip
def visual_attn_fwd_kernel(
    q_ptr, k_ptr, v_ptr, types_ptr, bias_ptr, scale_ptr, lists_ptr,
    cu_seqlens_q_ptr, cu_seqlens_k_ptr, prefix_index_ptr,
    out_ptr, mass_ptr, lse_ptr,
    softmax_scale, num_rows, num_keys, group, left, right, lists_stride,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh,
    stride_vb, stride_vl, stride_vh,
    stride_ob, stride_ol, stride_oh, stride_mb, stride_ml, stride_lb, stride_lh, stride_tb,
    NUM_TYPES: tl.constexpr, HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HAS_TYPES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, PACKED: tl.constexpr, HAS_PREFIX: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks, H, N)."""
    head = tl.program_id(1)
    index = tl.program_id(2)
    q_first, num_rows = sequence_of(cu_seqlens_q_ptr, index, num_rows, PACKED)
    k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED)
    # The last query block sees the most keys under causal masking: it goes first.
    row_first = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    if row_first >= num_rows:
        return
    MASK_D: tl.constexpr = HEAD_DIM != BLOCK_D
    MASK_DV: tl.constexpr = VALUE_DIM != BLOCK_DV
    batch = index.to(tl.int64)
    head_long = head.to(tl.int64)
    kv_head = (head // group).to(tl.int64)
    tile_rows = tl.arange(0, BLOCK_M)
    rows = row_first + tile_rows
    tile_keys = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_DV)
    channels = tl.arange(0, 16)
    row_exists = rows < num_rows
    dim_mask = dims < HEAD_DIM
    value_mask = value_dims < VALUE_DIM
    first_token = q_first + row_first  # int64

    # Offsets inside a tile fit 32 bits (the launcher sees to it); addresses of tiles are 64 bits
    # wide.
    q_base = q_ptr + batch * stride_qb + head_long * stride_qh + first_token * stride_ql
    q = load_tile(
        q_base + tile_rows[:, None] * stride_ql + dims[None, :], row_exists, dim_mask, True, MASK_D
    )
    k_offsets = tile_keys[:, None] * stride_kl + dims[None, :]
    v_offsets = tile_keys[:, None] * stride_vl + value_dims[None, :]
    k_step = tl.zeros((), tl.int64) + BLOCK_N * stride_kl
    v_step = tl.zeros((), tl.int64) + BLOCK_N * stride_vl
    bias_ptr += head * NUM_TYPES
    scale_ptr += head * NUM_TYPES

    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    mass = tl.zeros([BLOCK_M, 16], tl.float32)
    row_max = tl.full([BLOCK_M], ROW_MAX_FLOOR, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    softmax_scale_log2 = softmax_scale * LOG2E

    # The keys of the prefix, which all rows see, then the sequence's own. Unrolled: a loop would
    # keep what the general blocks need in registers during the plain ones.
    for OWN in tl.static_range(0 if HAS_PREFIX else 1, 2):
        sequence = index
        if HAS_PREFIX:
            if OWN:
                k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED, True)
            else:
                sequence, k_first, num_keys = prefix_of(cu_seqlens_k_ptr, prefix_index_ptr, index)
        k_base = k_ptr + batch * stride_kb + k_first * stride_kl + kv_head * stride_kh
        v_base = v_ptr + batch * stride_vb + k_first * stride_vl + kv_head * stride_vh
        part_types = types_ptr + batch * stride_tb + k_first
        part_lists = lists_ptr + sequence.to(tl.int64) * (NUM_TYPES + 2) * lists_stride
        row_last = tl.minimum(row_first + BLOCK_M, num_rows) - 1
        start, lo, hi, end = key_block_range(
            row_first, row_last, num_rows, num_keys, left, right,
            HAS_LEFT, HAS_RIGHT and OWN, BLOCK_N,
        )  # fmt: skip
        # One type after another; without types all blocks are of one.
        for key_type in range(0, NUM_TYPES if HAS_TYPES else 1):
            begin, stop = lo, hi
            if HAS_TYPES:
                begin, stop = listed_blocks(part_lists, lists_stride, key_type, lo, hi)
            factor = softmax_scale_log2
            summand = 0.0
            if HAS_SCALE:
                factor *= tl.load(scale_ptr + key_type)
            if HAS_BIAS:
                summand = tl.load(bias_ptr + key_type) * LOG2E
            max_before = row_max
            type_sum = tl.zeros([BLOCK_M], tl.float32)
            following = listed_block(part_lists, begin, HAS_TYPES)
            for position in range(begin, stop):
                block = following
                following = listed_block(part_lists, position + 1, HAS_TYPES)
                k = load_tile(
                    k_base + block * k_step + k_offsets, tile_keys, dim_mask, False, MASK_D
                )
                scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [M, N]
                if HAS_SCALE:
                    scores *= factor
                v_tile = v_base + block * v_step + v_offsets
                v = load_tile(v_tile, tile_keys, value_mask, False, MASK_DV)
                acc, row_max, type_sum, _, _ = accumulate(
                    acc, row_max, type_sum, scores, summand, v, factor, HAS_SCALE, PRECISION
                )
            if HAS_TYPES or HAS_PREFIX:
                decay = tl.exp2(max_before - row_max)
                row_sum = row_sum * decay + type_sum
            else:
                row_sum = type_sum
            if HAS_TYPES:
                is_type = (channels == key_type).to(tl.float32)
                mass = mass * decay[:, None] + type_sum[:, None] * is_type[None, :]  # [M, 16]

        q_first, num_rows = sequence_of(cu_seqlens_q_ptr, index, num_rows, PACKED, AGAIN=True)
        if OWN:
            k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED, AGAIN=True)
        else:
            sequence, k_first, num_keys = prefix_of(cu_seqlens_k_ptr, prefix_index_ptr, index)
        row_exists = rows < num_rows
        row_last = tl.minimum(row_first + BLOCK_M, num_rows) - 1
        start, lo, hi, end = key_block_range(
            row_first, row_last, num_rows, num_keys, left, right,
            HAS_LEFT, HAS_RIGHT and OWN, BLOCK_N,
        )  # fmt: skip
        general_begin = tl.zeros((), tl.int32)
        num_listed = tl.zeros((), tl.int32)
        if HAS_TYPES:
            general_begin, general_end = listed_blocks(part_lists, lists_stride, NUM_TYPES, lo, hi)
            num_listed = general_end - general_begin
        for position in range(0, num_listed + (lo - start) + (end - hi)):
            block = general_block(
                part_lists + general_begin, position, num_listed, start, lo, hi, HAS_TYPES
            )
            keys = block * BLOCK_N + tile_keys
            types, exists = types_of(part_types, keys, num_keys, HAS_TYPES)
            type_scale, bias = logit_terms(bias_ptr, scale_ptr, types, exists, HAS_BIAS, HAS_SCALE)
            k = load_tile(k_base + block * k_step + k_offsets, exists, dim_mask, True, MASK_D)
            scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [M, N]
            logits = scores * (softmax_scale_log2 * type_scale)[None, :] + bias[None, :]
            visible = exists[None, :] & sees(
                rows[:, None], keys[None, :], num_keys - num_rows, left, right,
                HAS_LEFT, HAS_RIGHT and OWN,
            )  # fmt: skip
            logits = tl.where(visible, logits, float("-inf"))
            v = load_tile(v_base + block * v_step + v_offsets, exists, value_mask, True, MASK_DV)
            acc, row_max, row_sum, weights, decay = accumulate(
                acc, row_max, row_sum, logits, 0.0, v, 1.0, True, PRECISION
            )
            if HAS_TYPES:
                one_hot = types[:, None] == channels[None, :]  # [N, 16]
                mass *= decay[:, None]
                if q.dtype == tl.float32:
                    mass = tl.dot(weights, one_hot.to(tl.float32), mass, input_precision=PRECISION)
                else:
                    mass = tl.dot(weights.to(tl.float16), one_hot.to(tl.float16), mass)

    sees_any = row_sum > 0.0
    row_sum = tl.where(sees_any, row_sum, 1.0)
    inverse = tl.where(sees_any, 1.0 / row_sum, 0.0)
    out_base = out_ptr + batch * stride_ob + head_long * stride_oh + first_token * stride_ol
    out_offsets = tile_rows[:, None] * stride_ol + value_dims[None, :]
    out_mask = row_exists[:, None] & value_mask[None, :]
    tl.store(
        out_base + out_offsets, (acc * inverse[:, None]).to(out_ptr.dtype.element_ty), mask=out_mask
    )
    lse = tl.where(sees_any, (row_max + tl.log2(row_sum)) * LN2, float("-inf"))
    lse_base = lse_ptr + batch * stride_lb + head_long * stride_lh + first_token
    tl.store(lse_base + tile_rows, lse, mask=row_exists)
    if HAS_TYPES:
        mass *= inverse[:, None]
    else:
        mass = tl.where((channels == 0)[None, :] & sees_any[:, None], 1.0, 0.0)
    mass_base = mass_ptr + batch * stride_mb + first_token * stride_ml + head * NUM_TYPES
    mass_mask = row_exists[:, None] & (channels < NUM_TYPES)[None, :]
    tl.store(mass_base + tile_rows[:, None] * stride_ml + channels[None, :], mass, mask=mass_mask)
