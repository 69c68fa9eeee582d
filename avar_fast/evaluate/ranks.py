"""The processes that share a run under torchrun. Each takes every n-th question."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")
LONGEST = timedelta(days=7)  # ranks wait this long for one whose answers take longer


def local_device() -> torch.device:
    """The GPU of this process, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class Ranks:
    """The processes of this run. Without torchrun there is one."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=LONGEST)

    @property
    def device(self) -> torch.device:
        return local_device()

    def _broadcast(self, value: T) -> T:
        """Returns the value of rank 0 on every rank."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def agree(self, act: Callable[[], T]) -> T:
        """Calls ``act`` on rank 0. All ranks return its value.

        Raises:
            ValueError: on all ranks, if ``act`` raises ValueError or OSError.
        """
        value = problem = None
        if self.rank == 0:
            try:
                value = act()
            except (ValueError, OSError) as error:
                problem = str(error)
        value, problem = self._broadcast((value, problem))
        if problem is not None:
            raise ValueError(problem)
        return value  # pyright: ignore[reportReturnType]

    def wait(self) -> None:
        """Waits until all ranks have called it."""
        if self.size > 1:
            distributed.barrier()

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
