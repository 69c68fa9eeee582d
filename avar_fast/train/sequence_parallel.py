"""Sequence parallelism as DeepSpeed-Ulysses has it (arXiv 2309.14509), with DeepSpeed's all-to-all.

The ranks of a group share the same rows. Between attentions each holds a stretch of every row with
all heads; inside an attention each holds all tokens with its share of the heads:

    (B, L / N, H, D) -> all-to-all -> (B, L, H / N, D) -> attention, all-to-all -> (B, L / N, H, D)

To ZeRO these are ranks like any others: it shards over all of them and adds up their gradients,
which are shares of one sum.
"""

import math

import torch
from torch import Tensor


class SequenceParallel:
    """This rank's part in a group of ranks that share rows.

    Args:
        size: ranks in a group; neighbors by rank, so that groups stay within a machine.

    Raises:
        ValueError: the number of ranks is not a multiple of ``size``.
    """

    def __init__(self, size: int) -> None:
        from deepspeed.sequence.layer import register_all_to_all_group

        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if world_size % size:
            raise ValueError(
                f"engine.sequence_parallel must divide the number of ranks; got {size} for"
                f" {world_size} ranks."
            )
        self.size, self.rank = size, rank % size
        for first in range(0, world_size, size):  # every rank takes part in making every group
            group = torch.distributed.new_group(range(first, first + size))
            if first <= rank < first + size:
                self.group = group
        register_all_to_all_group(self.group)  # pyright: ignore[reportArgumentType]

    def split(self, rows: Tensor, dim: int, fill: float = 0) -> Tensor:
        """This rank's stretch of the tokens along ``dim``.

        Stretches have one length; the last ones are filled up where the tokens run out.
        """
        length = rows.shape[dim]
        share = math.ceil(length / self.size)
        first = min(self.rank * share, length)
        own = rows.narrow(dim, first, min(share, length - first))
        missing = list(own.shape)
        missing[dim] = share - own.shape[dim]
        return torch.cat([own, own.new_full(missing, fill)], dim) if missing[dim] else own

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> tuple[Tensor, ...]:
        """All tokens of this rank's share of the heads.

        Key heads are repeated where there are too few to go round, until their number is a multiple
        of the ranks; query heads stay beside their key heads.

        Args:
            q, k, v: (B, share, H or Hkv, D), this rank's stretch.
            length: tokens in the whole rows, without what fills up the last stretch.

        Returns:
            q, k, v: (B, length, H / N or at least 1, D).
        """
        repeat = math.lcm(k.shape[2], self.size) // k.shape[2]
        k, v = (x.repeat_interleave(repeat, dim=2) if repeat > 1 else x for x in (k, v))
        # (N, B, share, heads / N, D): what goes to each rank; all three in one exchange
        parts = [x.unflatten(2, (self.size, -1)).movedim(2, 0) for x in (q, k, v)]
        sizes = [part.shape[3] for part in parts]
        whole = self._all_to_all(torch.cat(parts, dim=3)).transpose(0, 1).flatten(1, 2)
        return whole[:, :length].split(sizes, dim=2)

    def to_tokens(self, out: Tensor) -> Tensor:
        """(B, L, H / N, D), all tokens of this rank's heads -> (B, share, H, D), its stretch."""
        share = math.ceil(out.shape[1] / self.size)
        missing = share * self.size - out.shape[1]
        filled = torch.nn.functional.pad(out, (0, 0, 0, 0, 0, missing))
        parts = filled.unflatten(1, (self.size, share)).transpose(0, 1)
        return self._all_to_all(parts).movedim(0, 2).flatten(2, 3)

    def _all_to_all(self, parts: Tensor) -> Tensor:
        """Entry i of dimension 0 goes to rank i, differentiably."""
        from deepspeed.sequence.layer import _dim_zero_all_to_all

        return _dim_zero_all_to_all(self.group, parts)  # pyright: ignore[reportArgumentType]
