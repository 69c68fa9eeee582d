"""Gives each rank its samples step by step, encoded in the background."""

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
    """Assigns the units of an order (rows or packs) to ranks and steps.

    Args:
        rows: the data set.
        encoder: encodes a row to a sample.
        order: position -> rows of the unit.
        batch_size: units per step over all ranks; a multiple of ``world_size``.
        rank, world_size: index of this process and number of processes; or of groups, if the
            processes of a group share rows.
        cache_bytes: memory for encoded samples; the least recently used are dropped first.
        start: a step and the position of its first unit. All other positions follow from it, so a
            run that resumes with another ``batch_size`` neither skips nor repeats units.

    Raises:
        ValueError: ``batch_size`` is not a multiple of ``world_size``.
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
        """The row indices of this rank's units of one step (counted from 0)."""
        first, last = self.position(step), self.position(step + 1)
        positions = range(first + self.rank, last, self.world_size)
        return [self.order(position) for position in positions]

    def position(self, step: int) -> int:
        """The number of units that all ranks used before a step (counted from 0)."""
        first_step, first = self.start
        return first + (step - first_step) * self.batch_size

    def samples(self, step: int) -> list[Sample]:
        """This rank's samples of one step."""
        return [self.sample(index) for unit in self.units(step) for index in unit]

    def sample(self, index: int) -> Sample:
        """The encoded row.

        Raises:
            RowError: the row cannot be used.
        """
        row = self.rows[index]
        # A curriculum may repeat a row. Rows with images on disk are compared by content.
        on_disk = all(isinstance(image, Path) for image in row.images)
        key = (str(row.messages), *row.images, row.target) if on_disk else index
        if key in self._cache:
            self._cache.move_to_end(key)
            return dataclasses.replace(self._cache[key], row=row)  # other columns may differ
        sample = self.encoder(row)
        if sample.num_bytes <= self._cache_bytes:
            self._cache[key] = sample
            self._cached_bytes += sample.num_bytes
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].num_bytes
        return sample


class Feed:
    """The micro-batches of this rank in order, made by worker processes ahead of the step.

    A micro-batch is a pure function of its number, so it does not depend on the number of workers.

    Args:
        stream: the source of samples.
        units_per_item: units of the stream in a micro-batch.
        finish: makes a micro-batch of its samples; runs in the workers.
        first_step, num_steps: first step, and number of steps of the run.
        workers: number of processes; 0 makes each micro-batch on demand in this process.
        pin: return micro-batches in page-locked memory.

    Raises:
        ValueError: the units of a step are not a multiple of ``units_per_item``.
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
        numbers = range(first_step * self.items_per_step, num_steps * self.items_per_step)
        self._loader = DataLoader(
            items,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            pin_memory=pin,
            generator=own_generator(),
        )
        self._iterator: Iterator[Any] | None = None

    def next_step(self) -> list[Any]:
        """The micro-batches of the next step.

        Raises:
            RowError: a row of the step cannot be used.
        """
        if self._iterator is None:  # as late as possible: workers are copies of this process
            self._iterator = iter(self._loader)
        items = [next(self._iterator) for _ in range(self.items_per_step)]
        for item in items:
            if isinstance(item, RowError):
                raise item
        return items


def own_generator() -> torch.Generator:
    """A generator for a DataLoader, which draws a seed for its workers when it starts. With the
    global generator, a resumed run would have other random numbers than an uninterrupted one."""
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
            # Returned, not raised: an error raised in a worker arrives with a traceback as message.
            return error
