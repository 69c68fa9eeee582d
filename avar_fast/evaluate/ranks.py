"""Processes that share a run under torchrun: each takes every n-th question."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")
LONGEST = timedelta(days=7)  # a rank with longer answers keeps the others waiting


def local_device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class Ranks:
    """The processes of this run; one without torchrun."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=LONGEST)

    @property
    def device(self) -> torch.device:
        return local_device()

    def _first_says(self, value: T) -> T:
        """What rank 0 has, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def agree(self, act: Callable[[], T]) -> T:
        """Rank 0 acts: all return what it returns, and raise what it raises for bad input."""
        value = problem = None
        if self.rank == 0:
            try:
                value = act()
            except (ValueError, OSError) as error:
                problem = str(error)
        value, problem = self._first_says((value, problem))
        if problem is not None:
            raise ValueError(problem)
        return value  # pyright: ignore[reportReturnType]

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            distributed.barrier()

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
