"""Which key blocks a query block visits, and how tiles are loaded: the parts all kernels share.

Key blocks come in three classes:
    plain      all keys exist, have one type and are visible to the whole query block. There are no
               masks, the type's bias and scale are scalars, and the attention mass is the row sum
               that softmax needs anyway.
    general    types meet, or a mask is needed: diagonal, window edge, ragged end, padding beside
               other keys. Such a block pays for masks and for a product with the one-hot types.
    absent     no key exists. Nobody visits it.
Images and turns are long runs, so general blocks are few. Softmax does not depend on the order of
the keys, so plain blocks go first, in a loop of their own without a branch.

``sort_blocks_kernel`` sorts the key blocks of every sequence into lists: one list of plain blocks
per type, in order of type, then the list of general blocks. It knows the types only; a kernel
treats a listed plain block as general where the diagonal or the window cuts it. A kernel walks one
list at a time, so nothing inside its loop depends on the type: bias, scale and the backward's row
constant are loaded once, and the mass is added when the list ends. The result is int32
(N, NUM_TYPES + 2, num_blocks + 1) with the rows
    0        the lists one after another, the blocks of each in ascending order
    1 + l    for b = 0 .. num_blocks: the position of the first block of list l that is not before b
so that the part of a list inside any range of blocks is found without a search.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
UNLIMITED = tl.constexpr(2**30)  # a window beyond any sequence; row + window stays inside int32


@triton.jit
def sequence_of(
    cu_seqlens_ptr, index, length, PACKED: tl.constexpr, AGAIN: tl.constexpr = False
):  # fmt: skip
    """(first row, number of rows) of sequence ``index``; dense sequences start at row 0.

    AGAIN is for a second reading behind a loop, which the compiler must not replace by the first:
    it would keep all that depends on the two numbers in some twenty registers during the loop.
    """
    first = tl.zeros((), tl.int64)
    if PACKED:
        begin = tl.load(cu_seqlens_ptr + index, volatile=AGAIN)
        first = begin.to(tl.int64)
        length = tl.load(cu_seqlens_ptr + index + 1, volatile=AGAIN) - begin
    return first, length


@triton.jit
def prefix_of(cu_seqlens_k_ptr, prefix_index_ptr, index):
    """(sequence, first row, number of rows) of the keys of the prefix of sequence ``index``; no
    rows if it has none. Read again wherever it is needed, as in ``sequence_of``."""
    prefix = tl.load(prefix_index_ptr + index, volatile=True)
    sequence = tl.maximum(prefix, 0)
    first, length = sequence_of(cu_seqlens_k_ptr, sequence, 0, True, AGAIN=True)
    return sequence, first, tl.where(prefix < 0, 0, length)


@triton.jit
def key_block_range(
    row_first, row_last, num_rows, num_keys, left, right,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """(start, lo, hi, end): the rows see keys in blocks [start, end), and all keys in [lo, hi)."""
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
    """(start, lo, hi, end): rows in blocks [start, end) see keys; in [lo, hi) all rows see all."""
    offset = num_keys - num_rows
    first_seeing = tl.zeros((), tl.int32)
    first_of_all = tl.zeros((), tl.int32)
    end_seeing = num_rows
    end_of_all = num_rows
    if HAS_RIGHT:
        first_seeing = tl.maximum(key_first - offset - right, 0)
        first_of_all = tl.maximum(key_last - offset - right, 0)
    if HAS_LEFT:
        end_seeing = tl.minimum(tl.maximum(key_last - offset + left + 1, 0), num_rows)
        end_of_all = tl.minimum(tl.maximum(key_first - offset + left + 1, 0), num_rows)
    end = tl.cdiv(end_seeing, BLOCK_M)
    start = tl.minimum(first_seeing // BLOCK_M, end)
    lo = tl.minimum(tl.cdiv(first_of_all, BLOCK_M), end)
    hi = tl.maximum(end_of_all // BLOCK_M, lo)
    return start, lo, hi, end


@triton.jit
def general_block(list_ptr, position, num_listed, start, lo, hi, HAS_TYPES: tl.constexpr):
    """The ``position``-th general block: those of the list, then [start, lo), then [hi, end)."""
    past_list = position - num_listed
    past_left = past_list - (lo - start)
    block = tl.where(past_left < 0, start + past_list, hi + past_left)
    if HAS_TYPES:
        listed = position < num_listed
        block = tl.where(listed, tl.load(list_ptr + position, mask=listed, other=0), block)
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
def types_of(
    types_ptr, keys, num_keys, HAS_TYPES: tl.constexpr, AGAIN: tl.constexpr = False
):  # fmt: skip
    """(type, whether the key exists) per key of a general block.

    AGAIN is for a second reading, which the compiler must not replace by the first: types that are
    kept over a loop cost it registers.
    """
    exists = keys < num_keys
    types = tl.zeros_like(keys)
    if HAS_TYPES:
        types = tl.load(types_ptr + keys, mask=exists, other=-1, volatile=AGAIN)
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


@triton.jit
def listed_blocks(lists_ptr, lists_stride, index, lo, hi):
    """[begin, end) of the positions that list ``index``'s blocks in [lo, hi) have."""
    before_ptr = lists_ptr + (1 + index) * lists_stride
    return tl.load(before_ptr + lo), tl.load(before_ptr + hi)


@triton.jit
def listed_block(lists_ptr, position, HAS_TYPES: tl.constexpr):
    """The block at a position of the lists. Without types, every block stands at its own position.

    A loop over a list must load the block of the next step, not of its own: the compiler does not
    prefetch tiles whose address is loaded in the same step. A loop therefore reads one entry past
    the end of its list, which the lists have.
    """
    block = position
    if HAS_TYPES:
        block = tl.load(lists_ptr + position)
    return block


@triton.jit
def _class_of_blocks(types_ptr, blocks, length, BLOCK_N: tl.constexpr, NUM_TYPES: tl.constexpr):
    """[CHUNK] list of each block: its type if plain, NUM_TYPES if general, -1 if absent."""
    keys = blocks[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]  # [CHUNK, N]
    types = tl.load(types_ptr + keys, mask=keys < length, other=-1)
    low = tl.min(types, 1)
    high = tl.max(types, 1)
    plain = (low >= 0) & (low == high)
    return tl.where(plain, low, tl.where(high >= 0, NUM_TYPES, -1))


@triton.jit
def _sort_blocks(
    types_ptr, lists_ptr, row_stride, length,
    NUM_TYPES: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The lists of one sequence for one block size."""
    num_blocks = tl.cdiv(length, BLOCK_N)
    lists = tl.arange(0, 32)
    is_list = lists <= NUM_TYPES

    sizes = tl.zeros([32], tl.int32)
    for chunk in range(0, num_blocks, CHUNK):
        blocks = chunk + tl.arange(0, CHUNK)
        of_block = _class_of_blocks(types_ptr, blocks, length, BLOCK_N, NUM_TYPES)
        sizes += tl.sum((of_block[:, None] == lists[None, :]).to(tl.int32), 0)

    begin = tl.cumsum(sizes, 0) - sizes  # [32]
    # The entry behind the lists is read by loops that look one block ahead, but never used.
    tl.store(lists_ptr + tl.sum(sizes, 0), 0)
    for chunk in range(0, num_blocks, CHUNK):
        blocks = chunk + tl.arange(0, CHUNK)
        of_block = _class_of_blocks(types_ptr, blocks, length, BLOCK_N, NUM_TYPES)
        in_list = (of_block[:, None] == lists[None, :]).to(tl.int32)  # [CHUNK, 32]
        before = begin[None, :] + tl.cumsum(in_list, 0) - in_list
        own = tl.sum(before * in_list, 1)  # the position of the block in its list
        tl.store(lists_ptr + own, blocks, mask=of_block >= 0)
        tl.store(
            lists_ptr + (1 + lists)[None, :] * row_stride + blocks[:, None], before,
            mask=(blocks < num_blocks)[:, None] & is_list[None, :],
        )  # fmt: skip
        begin += tl.sum(in_list, 0)
    tl.store(lists_ptr + (1 + lists) * row_stride + num_blocks, begin, mask=is_list)


@triton.jit(do_not_specialize=["num_keys"])
def sort_blocks_kernel(
    types_ptr, cu_seqlens_k_ptr, lists_ptr, num_keys,
    NUM_TYPES: tl.constexpr, PACKED: tl.constexpr, SMALLEST: tl.constexpr,
    NUM_SIZES: tl.constexpr, CHUNK_KEYS: tl.constexpr,
):  # fmt: skip
    """Sorts the key blocks of all sequences; see the module docstring. Grid (N, NUM_SIZES).

    Block sizes are SMALLEST and its doubles. The lists of each size follow those of the one before,
    in whole units of 16 bytes, as ``block_lists.ListsLayout`` says. Packed, num_keys is the longest
    length.
    """
    index = tl.program_id(0)
    first, length = sequence_of(cu_seqlens_k_ptr, index, num_keys, PACKED)
    if not PACKED:
        first = index.to(tl.int64) * num_keys
    types_ptr += first
    for size in tl.static_range(NUM_SIZES):
        row_stride = tl.cdiv(num_keys, SMALLEST * 2**size) + 1
        per_sequence = (NUM_TYPES + 2) * row_stride
        if tl.program_id(1) == size:
            _sort_blocks(
                types_ptr, lists_ptr + index.to(tl.int64) * per_sequence, row_stride, length,
                NUM_TYPES, SMALLEST * 2**size, CHUNK_KEYS // (SMALLEST * 2**size),
            )  # fmt: skip
        lists_ptr += tl.cdiv(tl.num_programs(0) * per_sequence, 4) * 4
