"""The samples of a rank, step by step, made ready in the background."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .encode import Encoder
from .order import Order
from .problems import RowError
from .rows import Rows
from .sample import Sample


class SampleStream:
    """Deals the units of an order (rows or packs) to ranks and steps.

    Args:
        rows: the data set.
        encoder: row -> sample.
        order: position -> rows of the unit.
        batch_size: units per step over all ranks; a multiple of ``world_size``.
        rank, world_size: this process among all, or its group among the groups that share rows.
        cache_bytes: encoded samples kept in memory, least recently used dropped first.
        start: a step and the position of its first unit, from which all others follow. So a run
            that is resumed with another ``batch_size`` neither skips nor repeats a unit.
    """

    def __init__(
        self,
        rows: Rows,
        encoder: Encoder,
        order: Order,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 0,
        start: tuple[int, int] = (0, 0),
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"train.batch_size must be a multiple of the {world_size} ranks; got {batch_size}."
            )
        self.rows, self.encoder, self.order = rows, encoder, order
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.units_per_step = batch_size // world_size
        self.start = start
        self._cache: OrderedDict[Hashable, Sample] = OrderedDict()
        self._cache_bytes, self._cached_bytes = cache_bytes, 0

    def units(self, step: int) -> list[list[int]]:
        """Rows of this rank's units of one step (counted from 0)."""
        first, last = self.position(step), self.position(step + 1)
        positions = range(first + self.rank, last, self.world_size)
        return [self.order(position) for position in positions]

    def position(self, step: int) -> int:
        """Units dealt over all ranks before a step (counted from 0)."""
        first_step, first = self.start
        return first + (step - first_step) * self.batch_size

    def samples(self, step: int) -> list[Sample]:
        """This rank's samples of one step."""
        return [self.sample(index) for unit in self.units(step) for index in unit]

    def sample(self, index: int) -> Sample:
        """The encoded row; raises RowError if it cannot be used."""
        row = self.rows[index]
        # A curriculum lists a row many times; images on disk tell that it is the same one.
        on_disk = all(isinstance(image, Path) for image in row.images)
        key = (str(row.messages), *row.images, row.target) if on_disk else index
        if key in self._cache:
            self._cache.move_to_end(key)
            return dataclasses.replace(self._cache[key], row=row)  # its other columns are its own
        sample = self.encoder(row)
        if sample.num_bytes <= self._cache_bytes:
            self._cache[key] = sample
            self._cached_bytes += sample.num_bytes
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].num_bytes
        return sample


class Feed:
    """The micro-batches of this rank, in order, made by worker processes ahead of the step.

    What comes does not depend on the number of workers: an item is a pure function of its number.

    Args:
        stream: where samples come from.
        units_per_item: units of the stream in a micro-batch.
        finish: samples of a micro-batch -> what a step takes; runs in the workers.
        first_step, num_steps: steps to make, from the first up to num_steps.
        workers: processes; 0 makes each item when it is asked for, in this process.
        pin: hand items over in page-locked memory.
    """

    def __init__(
        self,
        stream: SampleStream,
        units_per_item: int,
        finish: Callable[[list[Sample]], Any],
        first_step: int,
        num_steps: int,
        workers: int,
        pin: bool = False,
    ) -> None:
        if stream.units_per_step % units_per_item:
            raise ValueError(
                f"train.batch_size over {stream.world_size} ranks must be a multiple of"
                f" train.micro_batch_size; got {stream.units_per_step} and {units_per_item}."
            )
        self.stream = stream
        self.items_per_step = stream.units_per_step // units_per_item
        items = _Items(stream, units_per_item, self.items_per_step, finish)
        wanted = range(first_step * self.items_per_step, num_steps * self.items_per_step)
        self._loader = DataLoader(
            items,
            batch_size=None,
            sampler=wanted,
            num_workers=workers,
            pin_memory=pin,
            generator=own_generator(),
        )
        self._iterator: Iterator[Any] | None = None

    def next_step(self) -> list[Any]:
        """The items of the next step.

        Raises:
            RowError: a row of the step cannot be used.
        """
        if self._iterator is None:  # not before: workers are copies of the process as it is then
            self._iterator = iter(self._loader)
        items = [next(self._iterator) for _ in range(self.items_per_step)]
        for item in items:
            if isinstance(item, RowError):
                raise item
        return items


def own_generator() -> torch.Generator:
    """For a DataLoader, which draws a seed for its workers as it starts: from the global generator,
    a resumed run would go on with other random numbers than one that was not interrupted."""
    return torch.Generator().manual_seed(0)


class _Items(Dataset):
    def __init__(
        self,
        stream: SampleStream,
        units_per_item: int,
        items_per_step: int,
        finish: Callable[[list[Sample]], Any],
    ) -> None:
        self.stream, self.finish = stream, finish
        self.units_per_item, self.items_per_step = units_per_item, items_per_step

    def __getitem__(self, number: int) -> Any:
        step, at = divmod(number, self.items_per_step)
        units = self.stream.units(step)[at * self.units_per_item : (at + 1) * self.units_per_item]
        try:
            return self.finish([self.stream.sample(i) for unit in units for i in unit])
        except RowError as error:
            # As a value: raised in a worker it would arrive with a traceback for a message.
            return error
