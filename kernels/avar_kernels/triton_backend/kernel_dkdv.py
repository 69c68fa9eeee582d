"""Backward kernels, second half: dk, dv and the gradients of the type tables.

    dv_j = sum_i P_ij dout_i,   dk_j = softmax_scale * sum_i dZ_ij type_scale[h, t_j] q_i
    dtype_bias[h, c]  = sum of dZ_ij over keys of type c
    dtype_scale[h, c] = sum of dZ_ij * softmax_scale * (q_i . k_j) over keys of type c
with dZ as in ``kernel_dq``; sums over i include the query heads of the key head's group.

One program per (key block, key head, sequence) loops over the group's query heads and their query blocks, so
nothing is added atomically and the result is the same on every run. The tables' gradients leave as one float32
row of 16 channels per (sequence, key block, query head), which the launcher adds up in a fixed order.

Tiles are transposed, [N, M]: P and dZ then come out of one matrix product in the layout in which the next one
reads them. P and dZ are rounded to the dtype of the inputs, accumulators are float32.
"""

import triton
import triton.language as tl

from .kernel_dq import shift_per_element
from .blocks import LOG2E, load_tile, logit_terms, query_block_range, sees, sequence_of, types_of


@triton.jit(do_not_specialize=["num_rows", "num_keys", "left", "right"])
def visual_attn_bwd_dkdv_kernel(
    q_ptr, k_ptr, v_ptr, types_ptr, bias_ptr, scale_ptr, cu_seqlens_q_ptr, cu_seqlens_k_ptr,
    dout_ptr, stats_ptr, dk_ptr, dv_ptr, dbias_ptr, dscale_ptr,
    softmax_scale, num_rows, num_keys, group, left, right,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh, stride_vb, stride_vl, stride_vh,
    stride_dob, stride_dol, stride_doh, stride_sb, stride_sh, stride_sc,
    stride_dkb, stride_dkl, stride_dkh, stride_dvb, stride_dvl, stride_dvh, stride_tb,
    NUM_TYPES: tl.constexpr, HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HAS_TYPES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Grid (key blocks, Hkv, N). dbias and dscale: contiguous (N, key blocks, H, 16)."""
    kv_head = tl.program_id(1)
    index = tl.program_id(2)
    q_first, num_rows = sequence_of(cu_seqlens_q_ptr, index, num_rows, PACKED)
    k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED)
    # Early keys are seen by the most queries under causal masking: ascending order is heavy first.
    key_first = tl.program_id(0) * BLOCK_N
    if key_first >= num_keys:
        return
    MASK_D: tl.constexpr = HEAD_DIM != BLOCK_D
    MASK_DV: tl.constexpr = VALUE_DIM != BLOCK_DV
    batch = index.to(tl.int64)
    keys = key_first + tl.arange(0, BLOCK_N)
    tile_rows = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_DV)
    dim_mask = dims < HEAD_DIM
    value_mask = value_dims < VALUE_DIM
    tile_keys = tl.arange(0, BLOCK_N)
    key_in_range = keys < num_keys
    # Offsets inside a tile fit 32 bits (the launcher sees to it): 64-bit ones cost the registers of a tile row.
    q_offsets = tile_rows[:, None] * stride_ql + dims[None, :]
    dout_offsets = tile_rows[:, None] * stride_dol + value_dims[None, :]
    first_token = k_first + key_first  # int64
    softmax_scale_log2 = softmax_scale * LOG2E
    types_ptr += batch * stride_tb + k_first
    types, exists = types_of(types_ptr, keys, num_keys, HAS_TYPES)
    k_base = k_ptr + batch * stride_kb + kv_head.to(tl.int64) * stride_kh + first_token * stride_kl
    k_offsets = tile_keys[:, None] * stride_kl + dims[None, :]
    k = load_tile(k_base + k_offsets, exists, dim_mask, True, MASK_D)  # [N, D]
    v_base = v_ptr + batch * stride_vb + kv_head.to(tl.int64) * stride_vh + first_token * stride_vl
    v_offsets = tile_keys[:, None] * stride_vl + value_dims[None, :]
    v = load_tile(v_base + v_offsets, exists, value_mask, True, MASK_DV)  # [N, DV]
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)

    key_last = tl.minimum(key_first + BLOCK_N, num_keys) - 1
    start, lo, hi, end = query_block_range(
        key_first, key_last, num_rows, num_keys, left, right, HAS_LEFT, HAS_RIGHT, BLOCK_M
    )
    key_type = tl.zeros((), tl.int32)
    is_mixed = False
    if HAS_TYPES:
        key_type = tl.max(types, 0)
        is_mixed = key_type != tl.min(types, 0)
        # A block without any existing key has nothing to do but to store zeros.
        end = tl.where(key_type < 0, start, end)
        key_type = tl.maximum(key_type, 0)

    for member in range(0, group):
        head = kv_head * group + member
        head_long = head.to(tl.int64)
        q_base = q_ptr + batch * stride_qb + head_long * stride_qh + q_first * stride_ql
        dout_base = dout_ptr + batch * stride_dob + head_long * stride_doh + q_first * stride_dol
        stats_base = stats_ptr + batch * stride_sb + head_long * stride_sh + q_first
        type_scale, bias = logit_terms(
            bias_ptr + head * NUM_TYPES, scale_ptr + head * NUM_TYPES, types, exists, HAS_BIAS, HAS_SCALE
        )
        factor = softmax_scale_log2 * type_scale
        bias = tl.where(exists, bias, float("-inf"))
        dbias = tl.zeros([BLOCK_N], tl.float32)
        dscale = tl.zeros([BLOCK_N], tl.float32)

        for block in range(start, end):
            first_row = tl.cast(block, tl.int64) * BLOCK_M
            rows = block * BLOCK_M + tile_rows
            row_exists = rows < num_rows
            q = load_tile(q_base + first_row * stride_ql + q_offsets, row_exists, dim_mask, True, MASK_D)  # [M, D]
            lse = tl.load(stats_base + first_row + tile_rows, mask=row_exists, other=float("inf"))
            scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)  # [N, M]
            logits = scores * factor[:, None] + bias[:, None]
            if HAS_LEFT or HAS_RIGHT:
                if (block < lo) | (block >= hi):
                    visible = sees(
                        rows[None, :], keys[:, None], num_keys - num_rows, left, right, HAS_LEFT, HAS_RIGHT
                    )
                    logits = tl.where(visible, logits, float("-inf"))
            weights = tl.exp2(logits - lse[None, :])
            dout = load_tile(
                dout_base + first_row * stride_dol + dout_offsets, row_exists, value_mask, True, MASK_DV
            )  # [M, DV]
            dv = tl.dot(weights.to(dout.dtype), dout, dv, input_precision=PRECISION)
            shift = tl.load(
                stats_base + (1 + key_type) * stride_sc + first_row + tile_rows, mask=row_exists, other=0.0
            )
            # The accumulator starts at -shift: no tile of shifts is alive beside the product.
            minus_shift = tl.broadcast_to(-shift[None, :], weights.shape)
            if HAS_TYPES:
                if is_mixed:
                    minus_shift = -shift_per_element(
                        stats_base + first_row, stride_sc, tile_rows[None, :], row_exists[None, :], types[:, None],
                        NUM_TYPES,
                    )  # fmt: skip
            dlogits = weights * tl.dot(v, tl.trans(dout), minus_shift, input_precision=PRECISION)
            if HAS_BIAS:
                dbias += tl.sum(dlogits, 1)
            if HAS_SCALE:
                dscale += tl.sum(dlogits * scores, 1)
                dlogits *= type_scale[:, None]
            dk = tl.dot(dlogits.to(q.dtype), q, dk, input_precision=PRECISION)

        if HAS_BIAS or HAS_SCALE:
            channels = tl.arange(0, 16)
            is_type = exists[:, None] & (types[:, None] == channels[None, :])  # [N, 16]
            slot = (batch * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) * group + head
            if HAS_BIAS:
                dbias_row = tl.sum(tl.where(is_type, dbias[:, None], 0.0), 0)
                tl.store(dbias_ptr + slot * 16 + channels, dbias_row)
            if HAS_SCALE:
                dscale_row = tl.sum(tl.where(is_type, dscale[:, None], 0.0), 0) * softmax_scale
                tl.store(dscale_ptr + slot * 16 + channels, dscale_row)

    dk_base = dk_ptr + batch * stride_dkb + kv_head.to(tl.int64) * stride_dkh + first_token * stride_dkl
    tl.store(
        dk_base + tile_keys[:, None] * stride_dkl + dims[None, :],
        (dk * softmax_scale).to(dk_ptr.dtype.element_ty),
        mask=key_in_range[:, None] & dim_mask[None, :],
    )
    dv_base = dv_ptr + batch * stride_dvb + kv_head.to(tl.int64) * stride_dvh + first_token * stride_dvl
    tl.store(
        dv_base + tile_keys[:, None] * stride_dvl + value_dims[None, :],
        dv.to(dv_ptr.dtype.element_ty),
        mask=key_in_range[:, None] & value_mask[None, :],
    )
