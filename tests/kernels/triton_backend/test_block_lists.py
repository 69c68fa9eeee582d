"""The sorted key blocks against their definition, for every block size, dense and packed."""

from .children import assert_agrees

PROGRAM = """
import torch
from avar_kernels.triton_backend.block_lists import (
    LIST_BLOCK_SIZES, ListsLayout, sort_for_every_size, sort_for_size)

def check(lists, layout, sequences):
    for block_n in LIST_BLOCK_SIZES:
        rows, stride = layout.num_types + 2, layout.row_stride(block_n)
        section = layout.section(lists, block_n)
        of_each = section[: len(sequences) * rows * stride].view(-1, rows, stride)
        for got, types in zip(of_each, sequences):
            blocks = list(types.split(block_n)) if len(types) else []
            members = [[] for _ in range(layout.num_types + 1)]
            for index, block in enumerate(blocks):
                kinds = set(block.tolist())
                if len(kinds) == 1 and len(block) == block_n and min(kinds) >= 0:
                    members[kinds.pop()].append(index)
                elif max(kinds) >= 0:
                    members[-1].append(index)
            order = [index for blocks_of in members for index in blocks_of]
            assert got[0, : len(order)].tolist() == order, (block_n, got, order)
            assert got[0, len(order)] == 0
            begin = 0
            for row, own in zip(got[1:], members):
                want = [begin + sum(x < b for x in own) for b in range(len(blocks) + 1)]
                assert row[: len(want)].tolist() == want, (block_n, row, want)
                begin += len(own)

torch.manual_seed(0)
types = torch.zeros(3, 700, dtype=torch.int32)
types[:, 100:420], types[1, :64], types[2, 512:] = 1, 2, -1
types[0, 600:] = torch.randint(-1, 3, (100,))
layout = ListsLayout.of(types, None, 0, 3)
check(sort_for_every_size(types, None, layout), layout, list(types))
one = sort_for_size(types, None, layout, 32)
assert torch.equal(one[: 5 * 23 * 3].view(3, 5, 23)[:, 1:],
                   layout.section(sort_for_every_size(types, None, layout), 32)
                   [: 5 * 23 * 3].view(3, 5, 23)[:, 1:])
flat, bounds = types.flatten(), [0, 130, 130, 643, 1500, 2100]
offsets = torch.tensor(bounds, dtype=torch.int32)
layout = ListsLayout.of(flat, offsets, 900, 3)
sequences = [flat[a:b] for a, b in zip(bounds, bounds[1:])]
check(sort_for_every_size(flat, offsets, layout), layout, sequences)
print("agree")
"""


def test_lists_hold_the_blocks_of_each_class_in_order():
    assert_agrees(PROGRAM)
