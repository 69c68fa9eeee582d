"""Which samples a rank sees at a step: one epoch after the other, restartable at any step."""

from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path

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
        shuffle: False deals every epoch in the order of the rows.
        rank, world_size: this process among all.
        cache_bytes: encoded samples kept in memory, least recently used dropped first.
    """

    def __init__(
        self,
        rows: Rows,
        encoder: Encoder,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 0,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"train.batch_size must be a multiple of the {world_size} ranks; got {batch_size}."
            )
        self.rows, self.encoder = rows, encoder
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self._cache: OrderedDict[Hashable, Sample] = OrderedDict()
        self._cache_bytes, self._cached_bytes = cache_bytes, 0
        self._orders: dict[int, list[int]] = {}

    def samples(self, step: int) -> list[Sample]:
        """This rank's samples of one step (counted from 0)."""
        first = step * self.batch_size + self.rank
        last = (step + 1) * self.batch_size
        return [self._sample(self._index(i)) for i in range(first, last, self.world_size)]

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.rows))
        if not self.shuffle:
            return offset
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.rows), generator=generator).tolist()
            # A step may span two epochs; older ones are not needed again.
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {
                epoch: order
            }
        return self._orders[epoch][offset]

    def _sample(self, index: int) -> Sample:
        row = self.rows[index]
        # A curriculum lists a row many times; images on disk tell that it is the same one.
        on_disk = all(isinstance(image, Path) for image in row.images)
        key = (str(row.messages), *row.images, row.target) if on_disk else index
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        sample = self.encoder(row)
        if sample.num_bytes <= self._cache_bytes:
            self._cache[key] = sample
            self._cached_bytes += sample.num_bytes
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].num_bytes
        return sample
