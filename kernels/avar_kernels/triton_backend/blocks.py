"""Which key blocks a query block visits, and how tiles are loaded: the parts all kernels share.

Blocks come in two classes. A *plain* block is wholly visible to the query block and holds existing
keys of one type: no masks, the type's bias and scale are scalars, its attention mass is the row sum
that softmax needs anyway. Every other block (diagonal, window edge, ragged end, padding, types that
meet) is *general* and pays for masks and for a product with the one-hot types. Images and turns are
long runs, so general blocks are few; softmax does not care about the order, so plain blocks go
first in a loop of their own instead of a branch inside one loop.

``plan_kernel`` sorts the key blocks of every sequence into the two classes. Its result is int32
(N, 4, max_blocks + 1) with the rows
    0  plain blocks in ascending order, as block * 16 + type
    1  general blocks in ascending order (blocks without any existing key are in neither list)
    2  how many of row 0 lie before block b, for b = 0 .. num_blocks
    3  how many of row 1 lie before block b
so that the part of a list inside any range of blocks is found without a search.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def sequence_of(cu_seqlens_ptr, index, length, PACKED: tl.constexpr):
    """(first row, number of rows) of sequence ``index``; dense sequences start at row 0."""
    first = tl.zeros((), tl.int64)
    if PACKED:
        begin = tl.load(cu_seqlens_ptr + index)
        first = begin.to(tl.int64)
        length = tl.load(cu_seqlens_ptr + index + 1) - begin
    return first, length


@triton.jit
def key_block_range(
    row_first, row_last, num_rows, num_keys, left, right,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """(start, lo, hi, end): rows see keys of blocks [start, end), all keys of [lo, hi)."""
    offset = num_keys - num_rows
    first_seen = tl.zeros((), tl.int32)
    first_by_all = tl.zeros((), tl.int32)
    end_seen = num_keys
    end_by_all = num_keys
    if HAS_LEFT:
        first_seen = tl.maximum(row_first + offset - left, 0)
        first_by_all = tl.maximum(row_last + offset - left, 0)
    if HAS_RIGHT:
        end_seen = tl.minimum(tl.maximum(row_last + offset + right + 1, 0), num_keys)
        end_by_all = tl.minimum(tl.maximum(row_first + offset + right + 1, 0), num_keys)
    end = tl.cdiv(end_seen, BLOCK_N)
    start = tl.minimum(first_seen // BLOCK_N, end)
    lo = tl.minimum(tl.cdiv(first_by_all, BLOCK_N), end)
    hi = tl.maximum(end_by_all // BLOCK_N, lo)
    return start, lo, hi, end


@triton.jit
def query_block_range(
    key_first, key_last, num_rows, num_keys, left, right,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """(start, end): the keys are seen by rows of blocks [start, end) only."""
    offset = num_keys - num_rows
    first_seeing = tl.zeros((), tl.int32)
    end_seeing = num_rows
    if HAS_RIGHT:
        first_seeing = tl.maximum(key_first - offset - right, 0)
    if HAS_LEFT:
        end_seeing = tl.minimum(tl.maximum(key_last - offset + left + 1, 0), num_rows)
    end = tl.cdiv(end_seeing, BLOCK_M)
    return tl.minimum(first_seeing // BLOCK_M, end), end


@triton.jit
def general_block(plan_row_ptr, position, num_listed, start, lo, hi, HAS_TYPES: tl.constexpr):
    """The ``position``-th general block: those of the plan, then [start, lo), then [hi, end)."""
    past_list = position - num_listed
    past_left = past_list - (lo - start)
    block = tl.where(past_left < 0, start + past_list, hi + past_left)
    if HAS_TYPES:
        listed = position < num_listed
        block = tl.where(listed, tl.load(plan_row_ptr + position, mask=listed, other=0), block)
    return block


@triton.jit
def load_tile(ptrs, row_mask, dim_mask, MASK_ROWS: tl.constexpr, MASK_DIM: tl.constexpr):
    """A [rows, dim] tile with zeros where a mask is false."""
    if MASK_ROWS:
        if MASK_DIM:
            return tl.load(ptrs, mask=row_mask[:, None] & dim_mask[None, :], other=0.0)
        return tl.load(ptrs, mask=row_mask[:, None], other=0.0)
    if MASK_DIM:
        return tl.load(ptrs, mask=dim_mask[None, :], other=0.0)
    return tl.load(ptrs)


@triton.jit
def types_of(types_ptr, keys, num_keys, HAS_TYPES: tl.constexpr):
    """(type, whether the key exists) per key of a general block."""
    exists = keys < num_keys
    types = tl.zeros_like(keys)
    if HAS_TYPES:
        types = tl.load(types_ptr + keys, mask=exists, other=-1)
        exists = types >= 0
    return types, exists


@triton.jit
def logit_terms(
    bias_ptr, scale_ptr, types, exists, HAS_BIAS: tl.constexpr, HAS_SCALE: tl.constexpr
):
    """(scale, base-2 bias) of the logits of each key of a general block."""
    scale = tl.full(types.shape, 1.0, tl.float32)
    bias = tl.zeros(types.shape, tl.float32)
    if HAS_SCALE:
        scale = tl.load(scale_ptr + types, mask=exists, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + types, mask=exists, other=0.0) * LOG2E
    return scale, bias


@triton.jit
def sees(rows, keys, offset, left, right, HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr):
    """Whether each row sees each key; ``rows`` and ``keys`` broadcast against one another."""
    positions = rows + offset
    visible = keys == keys
    if HAS_LEFT:
        visible = visible & (keys >= positions - left)
    if HAS_RIGHT:
        visible = visible & (keys <= positions + right)
    return visible


@triton.jit(do_not_specialize=["num_keys", "row_stride"])
def plan_kernel(
    types_ptr, cu_seqlens_k_ptr, plan_ptr, num_keys, row_stride,
    PACKED: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Sorts the key blocks of one sequence; see the module docstring. Grid (N,)."""
    index = tl.program_id(0)
    first, length = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED)
    if not PACKED:
        first = index.to(tl.int64) * num_keys
    num_blocks = tl.cdiv(length, BLOCK_N)
    plain_ptr = plan_ptr + index.to(tl.int64) * 4 * row_stride
    general_ptr = plain_ptr + row_stride
    num_plain = tl.zeros((), tl.int32)
    num_general = tl.zeros((), tl.int32)
    for chunk in range(0, num_blocks, CHUNK):
        blocks = chunk + tl.arange(0, CHUNK)
        inside = blocks < num_blocks
        keys = blocks[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]  # [CHUNK, N]
        types = tl.load(types_ptr + first + keys, mask=keys < length, other=-1)
        low = tl.min(types, 1)
        high = tl.max(types, 1)
        is_plain = (low >= 0) & (low == high)
        is_general = (high >= 0) & (low != high)
        plain_before = num_plain + tl.cumsum(is_plain.to(tl.int32), 0) - is_plain.to(tl.int32)
        general_before = (
            num_general + tl.cumsum(is_general.to(tl.int32), 0) - is_general.to(tl.int32)
        )
        tl.store(plain_ptr + plain_before, blocks * 16 + low, mask=is_plain)
        tl.store(general_ptr + general_before, blocks, mask=is_general)
        tl.store(plain_ptr + 2 * row_stride + blocks, plain_before, mask=inside)
        tl.store(plain_ptr + 3 * row_stride + blocks, general_before, mask=inside)
        num_plain += tl.sum(is_plain.to(tl.int32), 0)
        num_general += tl.sum(is_general.to(tl.int32), 0)
    tl.store(plain_ptr + 2 * row_stride + num_blocks, num_plain)
    tl.store(plain_ptr + 3 * row_stride + num_blocks, num_general)
