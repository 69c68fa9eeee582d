"""Backward kernels, first half: statistics per row, then dq.

With cotangents of out, mass and lse at once,
    dP_ij = dout_i . v_j + dmass_i[t_j],   delta_i = dout_i . out_i + dmass_i . mass_i
    dZ_ij = P_ij (dP_ij - delta_i + dlse_i)
          = P_ij (dout_i . v_j - shift_i[t_j]),   shift_i[c] = delta_i - dlse_i - dmass_i[c]
    dq_i  = softmax_scale * sum_j dZ_ij type_scale[h, t_j] k_j
so a plain block of keys needs one float32 number per row, exactly as flash attention without types
does.

``row_stats`` (B, H, 1 + channels, Lq) float32 holds lse * log2(e) in row 0 and shift[c] in row
1 + c. Rows that see no key get lse = +inf there, which makes every P_ij zero, and shift 0.

Rounding: logits, P and dP in float32; dZ is rounded to q's dtype for the product with k, which
accumulates in float32. P is rebuilt from lse. dq needs no atomics: one program owns a query block.
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


@triton.jit(
    do_not_specialize=[
        "num_rows", "stride_mb", "stride_lb", "stride_lh", "stride_sb", "stride_sh", "stride_sc",
    ]
)  # fmt: skip
def visual_attn_bwd_stats_kernel(
    out_ptr, mass_ptr, lse_ptr, dout_ptr, dmass_ptr, dlse_ptr, stats_ptr,
    num_rows,
    stride_ob, stride_ol, stride_oh, stride_dob, stride_dol, stride_doh, stride_mb, stride_ml,
    stride_lb, stride_lh, stride_sb, stride_sh, stride_sc,
    NUM_TYPES: tl.constexpr, VALUE_DIM: tl.constexpr, HAS_TYPES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Fills row_stats. Grid (row blocks, H, B); packed rows are one long sequence here."""
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    value_dims = tl.arange(0, BLOCK_DV)
    row_exists = rows < num_rows
    tile_mask = row_exists[:, None] & (value_dims < VALUE_DIM)[None, :]
    out_ptr += batch * stride_ob + head.to(tl.int64) * stride_oh
    dout_ptr += batch * stride_dob + head.to(tl.int64) * stride_doh
    out = tl.load(
        out_ptr + rows[:, None] * stride_ol + value_dims[None, :], mask=tile_mask, other=0.0
    )
    dout = tl.load(
        dout_ptr + rows[:, None] * stride_dol + value_dims[None, :], mask=tile_mask, other=0.0
    )
    shift = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)  # [M]
    lse_offsets = batch * stride_lb + head.to(tl.int64) * stride_lh + rows
    lse = tl.load(lse_ptr + lse_offsets, mask=row_exists, other=float("-inf"))
    shift -= tl.load(dlse_ptr + lse_offsets, mask=row_exists, other=0.0)
    sees_any = lse > float("-inf")
    stats_ptrs = stats_ptr + batch * stride_sb + head.to(tl.int64) * stride_sh + rows
    tl.store(stats_ptrs, tl.where(sees_any, lse * LOG2E, float("inf")), mask=row_exists)
    if HAS_TYPES:
        channels = tl.arange(0, 16)
        mass_offsets = (
            batch * stride_mb + rows[:, None] * stride_ml + head * NUM_TYPES + channels[None, :]
        )
        mass_mask = row_exists[:, None] & (channels < NUM_TYPES)[None, :]
        mass = tl.load(mass_ptr + mass_offsets, mask=mass_mask, other=0.0)  # [M, 16]
        dmass = tl.load(dmass_ptr + mass_offsets, mask=mass_mask, other=0.0)
        shift += tl.sum(mass * dmass, 1)
        shifts = tl.where(sees_any[:, None], shift[:, None] - dmass, 0.0)
        tl.store(stats_ptrs[:, None] + (1 + channels)[None, :] * stride_sc, shifts, mask=mass_mask)
    else:
        # With one type, mass is the constant 1 wherever it is not 0, so its gradient drops out.
        tl.store(stats_ptrs + stride_sc, tl.where(sees_any, shift, 0.0), mask=row_exists)


@triton.jit
def load_shifts(
    stats_ptr, stride_sc, tile_rows, row_exists, NUM_TYPES: tl.constexpr, DTYPE: tl.constexpr,
    AGAIN: tl.constexpr = False,
):  # fmt: skip
    """shift_i[c] as two [M, 16] tiles, the rounded value and the rest; their sum is exact to
    2^-16."""
    channels = tl.arange(0, 16)
    ptrs = stats_ptr + (1 + channels)[None, :] * stride_sc + tile_rows[:, None]
    mask = row_exists[:, None] & (channels < NUM_TYPES)[None, :]
    shifts = tl.load(ptrs, mask=mask, other=0.0, volatile=AGAIN)
    rounded = shifts.to(DTYPE)
    return rounded, (shifts - rounded.to(tl.float32)).to(DTYPE)


@triton.jit(
    do_not_specialize=[
        "num_rows", "num_keys", "left", "right", "lists_stride", "stride_sb", "stride_sh",
        "stride_sc", "stride_tb",
    ]
)  # fmt: skip
def visual_attn_bwd_dq_kernel(
    q_ptr, k_ptr, v_ptr, types_ptr, bias_ptr, scale_ptr, lists_ptr,
    cu_seqlens_q_ptr, cu_seqlens_k_ptr, prefix_index_ptr,
    dout_ptr, stats_ptr, dq_ptr,
    softmax_scale, num_rows, num_keys, group, left, right, lists_stride,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh,
    stride_vb, stride_vl, stride_vh,
    stride_dob, stride_dol, stride_doh, stride_sb, stride_sh, stride_sc,
    stride_dqb, stride_dql, stride_dqh, stride_tb,
    NUM_TYPES: tl.constexpr, HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HAS_TYPES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, PACKED: tl.constexpr, HAS_PREFIX: tl.constexpr,
    PRECISION: tl.constexpr, SHIFT_DTYPE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks, H, N)."""
    head = tl.program_id(1)
    index = tl.program_id(2)
    q_first, num_rows = sequence_of(cu_seqlens_q_ptr, index, num_rows, PACKED)
    k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED)
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
    dout_base = dout_ptr + batch * stride_dob + head_long * stride_doh + first_token * stride_dol
    dout_offsets = tile_rows[:, None] * stride_dol + value_dims[None, :]
    dout = load_tile(dout_base + dout_offsets, row_exists, value_mask, True, MASK_DV)  # [M, DV]
    k_offsets = tile_keys[:, None] * stride_kl + dims[None, :]
    v_offsets = tile_keys[:, None] * stride_vl + value_dims[None, :]
    k_step = tl.zeros((), tl.int64) + BLOCK_N * stride_kl
    v_step = tl.zeros((), tl.int64) + BLOCK_N * stride_vl
    bias_ptr += head * NUM_TYPES
    scale_ptr += head * NUM_TYPES
    stats_ptr += batch * stride_sb + head_long * stride_sh + first_token
    lse = tl.load(stats_ptr + tile_rows, mask=row_exists, other=float("inf"))
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
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
            lse_here = lse
            if HAS_SCALE:
                block_scale = tl.load(scale_ptr + key_type)
                factor *= block_scale
            if HAS_BIAS:
                lse_here = lse - tl.load(bias_ptr + key_type) * LOG2E
            shift_ptrs = stats_ptr + (1 + key_type) * stride_sc + tile_rows
            shift = tl.load(shift_ptrs, mask=row_exists, other=0.0)
            following = listed_block(part_lists, begin, HAS_TYPES)
            for position in range(begin, stop):
                block = following
                following = listed_block(part_lists, position + 1, HAS_TYPES)
                k = load_tile(
                    k_base + block * k_step + k_offsets, tile_keys, dim_mask, False, MASK_D
                )
                scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [M, N]
                weights = tl.exp2(scores * factor - lse_here[:, None])
                v_tile = v_base + block * v_step + v_offsets
                v = load_tile(v_tile, tile_keys, value_mask, False, MASK_DV)
                minus_shift = tl.broadcast_to(-shift[:, None], weights.shape)
                dlogits = weights * tl.dot(
                    dout, tl.trans(v), minus_shift, input_precision=PRECISION
                )
                if HAS_SCALE:
                    dlogits *= block_scale
                dq = tl.dot(dlogits.to(k.dtype), k, dq, input_precision=PRECISION)

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
        if not HAS_TYPES:
            only_shift = tl.load(stats_ptr + stride_sc + tile_rows, mask=row_exists, other=0.0)
        if HAS_TYPES:
            channels = tl.arange(0, 16)
            rounded, rest = load_shifts(
                stats_ptr,
                stride_sc,
                tile_rows,
                row_exists,
                NUM_TYPES,
                SHIFT_DTYPE,
                AGAIN=HAS_PREFIX,
            )
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
            visible = exists[None, :] & sees(
                rows[:, None], keys[None, :], num_keys - num_rows, left, right,
                HAS_LEFT, HAS_RIGHT and OWN,
            )  # fmt: skip
            logits = scores * (softmax_scale_log2 * type_scale)[None, :] + bias[None, :]
            logits = tl.where(visible, logits, float("-inf"))
            weights = tl.exp2(logits - lse[:, None])
            v = load_tile(v_base + block * v_step + v_offsets, exists, value_mask, True, MASK_DV)
            if HAS_TYPES:  # shift_i[t_j] for every element, as a product with the one-hot types
                one_hot = (types[None, :] == channels[:, None]).to(SHIFT_DTYPE)  # [16, N]
                shift = tl.dot(rest, one_hot, input_precision="ieee")
                minus_shift = -tl.dot(rounded, one_hot, shift, input_precision="ieee")
            else:
                minus_shift = tl.broadcast_to(-only_shift[:, None], weights.shape)
            dlogits = weights * tl.dot(dout, tl.trans(v), minus_shift, input_precision=PRECISION)
            if HAS_SCALE:
                dlogits *= type_scale[None, :]
            dq = tl.dot(dlogits.to(k.dtype), k, dq, input_precision=PRECISION)

    dq_base = dq_ptr + batch * stride_dqb + head_long * stride_dqh + first_token * stride_dql
    tl.store(
        dq_base + tile_rows[:, None] * stride_dql + dims[None, :],
        (dq * softmax_scale).to(dq_ptr.dtype.element_ty),
        mask=row_exists[:, None] & dim_mask[None, :],
    )
