"""Sequence parallelism after DeepSpeed-Ulysses (arXiv 2309.14509), with DeepSpeed's all-to-all.

The ranks of a group share the same rows. Outside attention, each rank holds a part of the tokens of
every row, with all heads. Inside attention, each rank holds all tokens, with a share of the heads:

    (B, L / N, H, D) -> all-to-all -> (B, L, H / N, D) -> attention, all-to-all -> (B, L / N, H, D)

ZeRO treats them like any other ranks: it shards over all of them and adds up their gradients, which
are shares of one sum.
"""

import math

import torch
from torch import Tensor


class SequenceParallel:
    """This rank's place in a group of ranks that share rows.

    Args:
        size: ranks in a group. They are neighbors by rank, so that a group stays within a machine.

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
        for first in range(0, world_size, size):  # all ranks must create all groups
            group = torch.distributed.new_group(range(first, first + size))
            if first <= rank < first + size:
                self.group = group
        register_all_to_all_group(self.group)  # pyright: ignore[reportArgumentType]

    def split(self, rows: Tensor, dim: int, fill: float = 0) -> Tensor:
        """This rank's part of the tokens along ``dim``.

        All parts have the same length; the last ones are padded with ``fill``.
        """
        length = rows.shape[dim]
        share = math.ceil(length / self.size)
        first = min(self.rank * share, length)
        own = rows.narrow(dim, first, min(share, length - first))
        missing = list(own.shape)
        missing[dim] = share - own.shape[dim]
        return torch.cat([own, own.new_full(missing, fill)], dim) if missing[dim] else own

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> tuple[Tensor, ...]:
        """Exchanges tokens for heads: returns all tokens of this rank's share of the heads.

        Key heads are repeated until their number is a multiple of the group's size. Query heads
        stay with their key heads.

        Args:
            q, k, v: (B, share, H or Hkv, D), this rank's part of the tokens.
            length: tokens in the whole rows, without the padding of the last parts.

        Returns:
            q, k, v: (B, length, H / N or at least 1, D).
        """
        repeat = math.lcm(k.shape[2], self.size) // k.shape[2]
        k, v = (x.repeat_interleave(repeat, dim=2) if repeat > 1 else x for x in (k, v))
        # (N, B, share, heads / N, D), one part for each rank; q, k and v in one exchange
        parts = [x.unflatten(2, (self.size, -1)).movedim(2, 0) for x in (q, k, v)]
        sizes = [part.shape[3] for part in parts]
        whole = self._all_to_all(torch.cat(parts, dim=3)).transpose(0, 1).flatten(1, 2)
        return whole[:, :length].split(sizes, dim=2)

    def to_tokens(self, out: Tensor) -> Tensor:
        """Exchanges heads for tokens: (B, L, H / N, D), all tokens of this rank's heads ->
        (B, share, H, D), all heads of this rank's tokens."""
        share = math.ceil(out.shape[1] / self.size)
        missing = share * self.size - out.shape[1]
        filled = torch.nn.functional.pad(out, (0, 0, 0, 0, 0, missing))
        parts = filled.unflatten(1, (self.size, share)).transpose(0, 1)
        return self._all_to_all(parts).movedim(0, 2).flatten(2, 3)

    def _all_to_all(self, parts: Tensor) -> Tensor:
        """Sends entry i of dimension 0 to rank i; differentiable."""
        from deepspeed.sequence.layer import _dim_zero_all_to_all

        return _dim_zero_all_to_all(self.group, parts)  # pyright: ignore[reportArgumentType]
