"""Which samples a rank sees at a step: a shuffled epoch after the other, restartable at any
step."""

from collections import OrderedDict

import torch

from .encode import Encoder, Sample
from .rows import Rows


class SampleStream:
    """Deals the rows of a data set to ranks and steps.

    The order depends on the seed and the epoch alone, so the samples of a step are the same after a
    resume and for any number of ranks.

    Args:
        rows: the data set.
        encoder: row -> sample.
        batch_size: samples per step over all ranks; a multiple of ``world_size``.
        seed: of the shuffles.
        rank, world_size: this process among all.
        cache_bytes: encoded samples kept in memory, least recently used dropped first.
    """

    def __init__(
        self,
        rows: Rows,
        encoder: Encoder,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 0,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"train.batch_size must be a multiple of the {world_size} ranks; got {batch_size}."
            )
        self.rows, self.encoder = rows, encoder
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._cache_bytes, self._cached_bytes = cache_bytes, 0
        self._orders: dict[int, list[int]] = {}

    def samples(self, step: int) -> list[Sample]:
        """This rank's samples of one step (counted from 0)."""
        first = step * self.batch_size + self.rank
        last = (step + 1) * self.batch_size
        return [self._sample(self._index(i)) for i in range(first, last, self.world_size)]

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.rows))
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.rows), generator=generator).tolist()
            # A step may span two epochs; older ones are not needed again.
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {
                epoch: order
            }
        return self._orders[epoch][offset]

    def _sample(self, index: int) -> Sample:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        sample = self.encoder(self.rows[index])
        if sample.num_bytes <= self._cache_bytes:
            self._cache[index] = sample
            self._cached_bytes += sample.num_bytes
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].num_bytes
        return sample
