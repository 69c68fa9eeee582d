"""Column sums of the attention matrix: how much weighted attention every key receives.

    received_jh = sum_i w_ih P_ij,   P_ij = exp(z_ij - lse_i)

with z as in ``kernel_forward``. The lse comes from a forward call, so one pass over the queries of
a key block suffices and no matrix is kept. One program per (key block, query head, sequence) adds
up its columns in a fixed order. Logits and sums are float32.
"""

import triton
import triton.language as tl

from .blocks import LOG2E, load_tile, logit_terms, query_block_range, sees, sequence_of, types_of


@triton.jit(
    do_not_specialize=[
        "num_rows", "num_keys", "left", "right", "stride_lb", "stride_lh", "stride_wb",
        "stride_wl", "stride_wh", "stride_rb", "stride_tb",
    ]
)  # fmt: skip
def attn_received_kernel(
    q_ptr, k_ptr, types_ptr, bias_ptr, scale_ptr, cu_seqlens_q_ptr, cu_seqlens_k_ptr,
    lse_ptr, weight_ptr, received_ptr,
    softmax_scale, num_rows, num_keys, group, left, right,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh,
    stride_lb, stride_lh, stride_wb, stride_wl, stride_wh, stride_rb, stride_tb,
    NUM_TYPES: tl.constexpr, HEAD_DIM: tl.constexpr,
    HAS_TYPES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (key blocks, H, N); received is contiguous (B, Lk, H) or (Tk, H) float32."""
    head = tl.program_id(1)
    index = tl.program_id(2)
    q_first, num_rows = sequence_of(cu_seqlens_q_ptr, index, num_rows, PACKED)
    k_first, num_keys = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED)
    key_first = tl.program_id(0) * BLOCK_N
    if key_first >= num_keys:
        return
    MASK_D: tl.constexpr = HEAD_DIM != BLOCK_D
    batch = index.to(tl.int64)
    head_long = head.to(tl.int64)
    tile_keys = tl.arange(0, BLOCK_N)
    keys = key_first + tile_keys
    tile_rows = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    dim_mask = dims < HEAD_DIM
    first_token = k_first + key_first  # int64
    types, exists = types_of(types_ptr + batch * stride_tb + k_first, keys, num_keys, HAS_TYPES)
    k_base = k_ptr + batch * stride_kb + (head_long // group) * stride_kh + first_token * stride_kl
    k_offsets = tile_keys[:, None] * stride_kl + dims[None, :]
    k = load_tile(k_base + k_offsets, exists, dim_mask, True, MASK_D)  # [N, D]
    tables = head * NUM_TYPES
    type_scale, bias = logit_terms(
        bias_ptr + tables, scale_ptr + tables, types, exists, HAS_BIAS, HAS_SCALE
    )
    factor = softmax_scale * LOG2E * type_scale  # [N]

    key_last = tl.minimum(key_first + BLOCK_N, num_keys) - 1
    start, _, _, end = query_block_range(
        key_first, key_last, num_rows, num_keys, left, right, HAS_LEFT, HAS_RIGHT, BLOCK_M
    )
    q_ptr += batch * stride_qb + head_long * stride_qh + q_first * stride_ql
    lse_ptr += batch * stride_lb + head_long * stride_lh + q_first
    weight_ptr += batch * stride_wb + head_long * stride_wh + q_first * stride_wl
    q_offsets = tile_rows[:, None] * stride_ql + dims[None, :]
    received = tl.zeros([BLOCK_N], tl.float32)
    for block in range(start, end):
        rows = block * BLOCK_M + tile_rows
        row_exists = rows < num_rows
        first_row = tl.cast(block, tl.int64) * BLOCK_M
        q = load_tile(q_ptr + first_row * stride_ql + q_offsets, row_exists, dim_mask, True, MASK_D)
        lse = tl.load(lse_ptr + rows, mask=row_exists, other=float("inf"))
        weight = tl.load(weight_ptr + rows.to(tl.int64) * stride_wl, mask=row_exists, other=0.0)
        blind = lse == float("-inf")  # a row that sees nothing gives nothing
        logits = tl.dot(k, tl.trans(q), input_precision=PRECISION) * factor[:, None]  # [N, M]
        logits += bias[:, None] - tl.where(blind, float("inf"), lse * LOG2E)[None, :]
        visible = exists[:, None] & sees(
            rows[None, :], keys[:, None], num_keys - num_rows, left, right, HAS_LEFT, HAS_RIGHT
        )
        attention = tl.exp2(tl.where(visible, logits, float("-inf")))
        received += tl.sum(attention * weight.to(tl.float32)[None, :], 1)

    num_heads = tl.num_programs(1)
    received_ptr += batch * stride_rb + head
    tl.store(received_ptr + (first_token + tile_keys) * num_heads, received, mask=keys < num_keys)
