"""Backward kernels, second half: dk, dv and the gradients of the type tables.

    dv_j = sum_i P_ij dout_i,   dk_j = softmax_scale * sum_i dZ_ij type_scale[h, t_j] q_i
    dtype_bias[h, c]  = sum of dZ_ij over keys of type c
    dtype_scale[h, c] = sum of dZ_ij * softmax_scale * (q_i . k_j) over keys of type c
with dZ as in ``kernel_dq``; sums over i include the query heads of the key head's group.

One program per (key block, key head, sequence) loops over the group's query heads and their query
blocks. Where that is too few programs for the device, each takes a share of the group's heads, and
the launcher adds up float32 dk and dv of the shares. Nothing is added atomically, so the result is
the same on every run. For the tables' gradients each program writes two float32 rows of 16 channels
per query head, one for the query blocks without a mask and one for the others; the launcher adds
the rows up in a fixed order.

The keys of a prefix are seen by the queries of its own sequence, and by all queries of its users.
A program of such keys goes through these sequences one after another, the users in ascending order.
``readers`` lists them: readers[reader_starts[n] : reader_starts[n + 1]] for the keys of sequence n.

Tiles are transposed, [N, M]: one matrix product then leaves P and dZ in the layout in which the
next one reads them. P and dZ are rounded to the dtype of the inputs, accumulators are float32.
"""

import triton
import triton.language as tl

from .blocks import LOG2E, UNLIMITED, load_tile, query_block_range, sees, sequence_of, types_of
from .kernel_dq import load_shifts


@triton.jit
def _store_by_type(
    row_ptr, values, types, exists, key_type, GENERAL: tl.constexpr, NEEDED: tl.constexpr
):  # fmt: skip
    """Sums of ``values`` over the keys of each type; a plain block has ``key_type`` alone."""
    if NEEDED:
        channels = tl.arange(0, 16)
        if GENERAL:
            is_type = exists[:, None] & (types[:, None] == channels[None, :])  # [N, 16]
            sums = tl.sum(tl.where(is_type, values[:, None], 0.0), 0)
        else:
            total = tl.sum(tl.where(exists, values, 0.0), 0)
            sums = tl.where(channels == key_type, total, 0.0)
        tl.store(row_ptr + channels, sums)


@triton.jit
def _load_row(ptrs, row_exists, other, MASKED: tl.constexpr):
    """A number of each query, [1, M]; ``other`` for a query that does not exist."""
    if MASKED:
        return tl.load(ptrs, mask=row_exists, other=other)[None, :]
    return tl.load(ptrs)[None, :]


@triton.jit
def _readers_of(reader_starts_ptr, index, HAS_PREFIX: tl.constexpr):
    """[begin, end) of the sequences whose queries see the keys of sequence ``index``."""
    begin = tl.zeros((), tl.int32)
    end = tl.full((), 1, tl.int32)
    if HAS_PREFIX:
        begin = tl.load(reader_starts_ptr + index)
        end = tl.load(reader_starts_ptr + index + 1)
    return begin, end


@triton.jit(
    do_not_specialize=[
        "num_rows", "num_keys", "left", "right", "stride_sb", "stride_sh", "stride_sc",
        "stride_tb",
    ]
)  # fmt: skip
def visual_attn_bwd_dkdv_kernel(
    q_ptr, k_ptr, v_ptr, types_ptr, bias_ptr, scale_ptr, cu_seqlens_q_ptr, cu_seqlens_k_ptr,
    reader_starts_ptr, readers_ptr,
    dout_ptr, stats_ptr, dk_ptr, dv_ptr, dbias_ptr, dscale_ptr,
    softmax_scale, num_rows, num_keys, group, num_shares, left, right,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh,
    stride_vb, stride_vl, stride_vh,
    stride_dob, stride_dol, stride_doh, stride_sb, stride_sh, stride_sc,
    stride_dkb, stride_dkl, stride_dkh, stride_dvb, stride_dvl, stride_dvh, stride_tb,
    NUM_TYPES: tl.constexpr, HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HAS_TYPES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, PACKED: tl.constexpr, HAS_PREFIX: tl.constexpr,
    PRECISION: tl.constexpr, SHIFT_DTYPE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Grid (key blocks, Hkv * num_shares, N); dk and dv have Hkv * num_shares heads. dbias and
    dscale: contiguous (N, key blocks, H, 2, 16); with prefixes (N, 2, key blocks, H, 2, 16), of the
    prefix's keys and of the sequence's own."""
    out_head = tl.program_id(1)
    kv_head = out_head // num_shares
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
    # Offsets inside a tile fit 32 bits (the launcher sees to it): 64-bit ones cost the registers of
    # a tile row.
    q_offsets = tile_rows[:, None] * stride_ql + dims[None, :]
    dout_offsets = tile_rows[:, None] * stride_dol + value_dims[None, :]
    first_token = k_first + key_first  # int64
    softmax_scale_log2 = softmax_scale * LOG2E
    share = tl.cdiv(group, num_shares)  # query heads of a program; the last may have fewer
    first_head = kv_head * group + out_head % num_shares * share
    num_heads = tl.minimum(share, (kv_head + 1) * group - first_head)
    own_types = types_ptr + (batch * stride_tb + k_first)
    types, exists = types_of(own_types, keys, num_keys, HAS_TYPES)
    k_base = k_ptr + batch * stride_kb + kv_head.to(tl.int64) * stride_kh + first_token * stride_kl
    k_offsets = tile_keys[:, None] * stride_kl + dims[None, :]
    k = load_tile(k_base + k_offsets, exists, dim_mask, True, MASK_D)  # [N, D]
    v_base = v_ptr + batch * stride_vb + kv_head.to(tl.int64) * stride_vh + first_token * stride_vl
    v_offsets = tile_keys[:, None] * stride_vl + value_dims[None, :]
    v = load_tile(v_base + v_offsets, exists, value_mask, True, MASK_DV)  # [N, DV]

    key_last = tl.minimum(key_first + BLOCK_N, num_keys) - 1
    start, lo, hi, end = query_block_range(
        key_first, key_last, num_rows, num_keys, left, right, HAS_LEFT, HAS_RIGHT, BLOCK_M
    )
    key_type = tl.zeros((), tl.int32)
    is_general = False
    is_absent = False
    if HAS_TYPES:
        key_type = tl.max(types, 0)
        is_general = key_type != tl.min(types, 0)
        is_absent = key_type < 0
        # An absent block only stores zeros.
        end = tl.where(is_absent, start, end)
        # A general block masks every query block.
        lo = tl.where(is_absent | is_general, start, lo)
        hi = tl.where(is_absent | is_general, start, hi)
        key_type = tl.maximum(key_type, 0)
    reader_q = q_ptr + (batch * stride_qb + q_first * stride_ql)
    reader_dout = dout_ptr + (batch * stride_dob + q_first * stride_dol)
    reader_stats = stats_ptr + (batch * stride_sb + q_first)

    # One loop over (head, query block) instead of two nested ones: the load pipeline runs on from
    # head to head, and the nested form needs up to a hundred registers more. Keys that do not exist
    # have garbage weights, which stay in their own rows and are dropped at the end. The loop is
    # compiled three times: for a plain block of keys and the query blocks that need no mask, for
    # the other query blocks, and for a general block of keys, which needs work per element. The
    # branches share no accumulators, so the first is as lean as without types.
    for GENERAL in tl.static_range(2 if HAS_TYPES else 1):
        if is_general == (GENERAL == 1):
            if GENERAL:
                types, exists = types_of(own_types, keys, num_keys, HAS_TYPES, AGAIN=True)
            dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            dv = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
            dbias = tl.zeros([BLOCK_N], tl.float32)
            dscale = tl.zeros([BLOCK_N], tl.float32)
            first_reader, end_reader = _readers_of(reader_starts_ptr, index, HAS_PREFIX)
            if HAS_PREFIX and HAS_TYPES:
                end_reader = tl.where(is_absent, first_reader, end_reader)
            for place in range(first_reader, end_reader):
                for MASKED in tl.static_range(GENERAL, 2):
                    part, reader_right = batch, right
                    if HAS_PREFIX:
                        # Volatile, as in ``sequence_of``: all this is computed for each of the two
                        # loops, and not kept during the first.
                        reader = tl.load(readers_ptr + place, volatile=True)
                        is_user = reader != index
                        part = reader.to(tl.int64) * 2 + is_user
                        reader_right = tl.where(is_user, UNLIMITED, right)
                        q_first, num_rows = sequence_of(
                            cu_seqlens_q_ptr, reader, num_rows, PACKED, AGAIN=True
                        )
                        k_first, num_keys = sequence_of(
                            cu_seqlens_k_ptr, index, num_keys, PACKED, AGAIN=True
                        )
                        key_last = tl.minimum(key_first + BLOCK_N, num_keys) - 1
                        start, lo, hi, end = query_block_range(
                            key_first, key_last, num_rows, num_keys, left, reader_right,
                            HAS_LEFT, HAS_RIGHT, BLOCK_M,
                        )  # fmt: skip
                        if GENERAL:
                            lo, hi = start, start
                        reader_q = q_ptr + q_first * stride_ql
                        reader_dout = dout_ptr + q_first * stride_dol
                        reader_stats = stats_ptr + q_first
                    first = lo
                    num_blocks = hi - lo
                    if MASKED:  # [start, lo), then [hi, end)
                        first = tl.where(start < lo, start, hi)
                        num_blocks = (lo - start) + (end - hi)
                    following_head = first_head
                    following_block = first
                    for _step in range(0, num_heads * num_blocks):
                        head, block = following_head, following_block
                        following_block = block + 1
                        if MASKED:
                            following_block = tl.where(following_block == lo, hi, following_block)
                        is_last = following_block == (end if MASKED else hi)
                        following_head = tl.where(is_last, head + 1, head)
                        following_block = tl.where(is_last, first, following_block)
                        head_long = tl.cast(head, tl.int64)
                        first_row = tl.cast(block, tl.int64) * BLOCK_M
                        rows = block * BLOCK_M + tile_rows
                        row_exists = rows < num_rows
                        q_base = reader_q + head_long * stride_qh + first_row * stride_ql
                        q = load_tile(q_base + q_offsets, row_exists, dim_mask, MASKED, MASK_D)
                        stats_base = reader_stats + head_long * stride_sh + first_row
                        lse = _load_row(stats_base + tile_rows, row_exists, float("inf"), MASKED)
                        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)  # [N, M]
                        if HAS_SCALE:
                            if GENERAL:
                                scale_ptrs = scale_ptr + head * NUM_TYPES + types
                                type_scale = tl.load(scale_ptrs, mask=exists, other=0.0)[:, None]
                            else:
                                type_scale = tl.load(scale_ptr + head * NUM_TYPES + key_type)
                            logits = scores * (softmax_scale_log2 * type_scale)
                        else:
                            logits = scores * softmax_scale_log2
                        if HAS_BIAS:
                            if GENERAL:
                                bias_ptrs = bias_ptr + head * NUM_TYPES + types
                                bias = tl.load(bias_ptrs, mask=exists, other=0.0) * LOG2E
                                logits += bias[:, None]
                            else:  # folded into the row's lse: M operations instead of N * M
                                lse -= tl.load(bias_ptr + head * NUM_TYPES + key_type) * LOG2E
                        if MASKED and (HAS_LEFT or HAS_RIGHT):
                            visible = sees(
                                rows[None, :], keys[:, None], num_keys - num_rows,
                                left, reader_right, HAS_LEFT, HAS_RIGHT,
                            )  # fmt: skip
                            logits = tl.where(visible, logits, float("-inf"))
                        weights = tl.exp2(logits - lse)
                        dout_base = reader_dout + head_long * stride_doh + first_row * stride_dol
                        dout = load_tile(
                            dout_base + dout_offsets, row_exists, value_mask, MASKED, MASK_DV
                        )
                        dv = tl.dot(weights.to(dout.dtype), dout, dv, input_precision=PRECISION)
                        # The accumulator starts at -shift: no tile of shifts is alive beside the
                        # product.
                        if GENERAL:
                            rounded, rest = load_shifts(
                                stats_base, stride_sc, tile_rows, row_exists, NUM_TYPES, SHIFT_DTYPE
                            )
                            one_hot = (types[:, None] == tl.arange(0, 16)[None, :]).to(SHIFT_DTYPE)
                            shift = tl.dot(one_hot, tl.trans(rest), input_precision="ieee")
                            shift = tl.dot(
                                one_hot, tl.trans(rounded), shift, input_precision="ieee"
                            )
                        else:
                            shift_ptrs = stats_base + (1 + key_type) * stride_sc + tile_rows
                            shift = _load_row(shift_ptrs, row_exists, 0.0, MASKED)
                        minus_shift = tl.broadcast_to(-shift, weights.shape)
                        dlogits = weights * tl.dot(
                            v, tl.trans(dout), minus_shift, input_precision=PRECISION
                        )
                        if HAS_BIAS:
                            dbias += tl.sum(dlogits, 1)
                        if HAS_SCALE:
                            dscale += tl.sum(dlogits * scores, 1)
                            dlogits *= type_scale
                        dk = tl.dot(dlogits.to(q.dtype), q, dk, input_precision=PRECISION)

                        if HAS_BIAS or HAS_SCALE:  # noqa: SIM102 (known at compile time)
                            if is_last:
                                program = part * tl.num_programs(0) + tl.program_id(0)
                                all_heads = tl.num_programs(1) // num_shares * group
                                slot = (program * all_heads + head) * 2 + MASKED
                                if not GENERAL:
                                    exists = keys < num_keys
                                _store_by_type(
                                    dbias_ptr + slot * 16, dbias, types, exists, key_type,
                                    GENERAL, HAS_BIAS,
                                )  # fmt: skip
                                _store_by_type(
                                    dscale_ptr + slot * 16, dscale * softmax_scale, types, exists,
                                    key_type, GENERAL, HAS_SCALE,
                                )  # fmt: skip
                                dbias = tl.zeros([BLOCK_N], tl.float32)
                                dscale = tl.zeros([BLOCK_N], tl.float32)

            k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED, AGAIN=True)
            first_token = k_first + key_first
            block_keys, block_types = keys, own_types
            if HAS_PREFIX:
                # No register is left to keep these. The minimum is 0, which the compiler does not
                # know: it would take ``keys`` for them.
                block_keys = key_first + tl.minimum(num_keys, 0) + tl.arange(0, BLOCK_N)
                block_types = types_ptr + k_first
            _, exists = types_of(block_types, block_keys, num_keys, HAS_TYPES, AGAIN=True)
            key_in_range = block_keys < num_keys
            dk = tl.where(exists[:, None], dk * softmax_scale, 0.0)
            dv = tl.where(exists[:, None], dv, 0.0)
            dk_base = (
                dk_ptr
                + batch * stride_dkb
                + out_head.to(tl.int64) * stride_dkh
                + first_token * stride_dkl
            )
            tl.store(
                dk_base + tile_keys[:, None] * stride_dkl + dims[None, :],
                dk.to(dk_ptr.dtype.element_ty),
                mask=key_in_range[:, None] & dim_mask[None, :],
            )
            dv_base = (
                dv_ptr
                + batch * stride_dvb
                + out_head.to(tl.int64) * stride_dvh
                + first_token * stride_dvl
            )
            tl.store(
                dv_base + tile_keys[:, None] * stride_dvl + value_dims[None, :],
                dv.to(dv_ptr.dtype.element_ty),
                mask=key_in_range[:, None] & value_mask[None, :],
            )
