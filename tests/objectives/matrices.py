"""Attention matrices of a small ragged batch, from logits that carry gradient.

The objectives under test read masses; the derivations in the tests read these matrices, row by row.
"""

import torch
from torch import Tensor

TEXT, VISUAL, SYSTEM, PAD = 0, 1, 2, -1
# Sample 0: two system, three image, three user, two response tokens; 1: left-padded; 2: no image.
TYPES = torch.tensor(
    [
        [SYSTEM, SYSTEM, VISUAL, VISUAL, VISUAL, TEXT, TEXT, TEXT, TEXT, TEXT],
        [PAD, PAD, PAD, SYSTEM, VISUAL, TEXT, TEXT, TEXT, TEXT, TEXT],
        [SYSTEM, SYSTEM, SYSTEM, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT],
    ]
)
USER = torch.tensor(
    [[0, 0, 0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]]
).bool()
RESPONSE = torch.tensor(
    [[0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]]
).bool()
NUM_LAYERS, NUM_HEADS = 3, 2


def logits(seed: int = 0) -> Tensor:
    """(layers, B, H, L, L) float64 leaf."""
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_LAYERS, *TYPES.shape[:1], NUM_HEADS, TYPES.shape[1], TYPES.shape[1])
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def matrices(z: Tensor) -> Tensor:
    """Causal attention over the keys that exist; rows that see none are zero."""
    length = TYPES.shape[1]
    visible = torch.ones(length, length).tril().bool() & (TYPES != PAD)[:, None, None, :]
    weights = torch.where(visible, torch.exp(z), 0.0)
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


def masses(attention: Tensor) -> dict[int, Tensor]:
    """{layer: (B, L, H, 3)}, what the kernels hand to the objectives."""
    one_hot = torch.stack([c == TYPES for c in (TEXT, VISUAL, SYSTEM)], -1).double()
    return {i: (a @ one_hot[:, None]).transpose(1, 2) for i, a in enumerate(attention)}


def key_mass(
    attention: Tensor, layer: int, sample: int, head: int, query: int, kind: int
) -> Tensor:
    """Attention of one row to all keys of one type, summed entry by entry."""
    row = attention[layer, sample, head, query]
    return sum(
        (row[j] for j in range(len(row)) if TYPES[sample, j] == kind), torch.zeros(()).double()
    )


def packed(mass: dict[int, Tensor]) -> tuple[dict[int, Tensor], Tensor]:
    """The samples end to end in one row, and which sample each token belongs to; padding to
    none."""
    ids = torch.arange(len(TYPES))[:, None].expand_as(TYPES)
    return {i: m.flatten(0, 1)[None] for i, m in mass.items()}, torch.where(
        TYPES == PAD, -1, ids
    ).flatten()[None]
