"""Runs a grid: as many blocks at a time as fit a number of lanes."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from .blocks import BlockGroup
from .global_memory import GlobalMemory
from .kernel import Kernel
from .program import parse
from .shared_memory import SharedMemory

LANES_AT_A_TIME = 4096


@cache
def kernel_of(ptx: str) -> Kernel:
    """The compiled kernel of a PTX text."""
    return Kernel(parse(ptx))


def launch(
    kernel: Kernel,
    grid: tuple[int, int, int],
    threads: int,
    shared_bytes: int,
    arguments: Sequence[int],
    tensors: Sequence[torch.Tensor],
) -> None:
    """Runs all blocks of a grid.

    ``arguments`` are the bits of the parameters in order, ``tensors`` all memory that may be
    touched.

    Raises:
        Report: a fault of the kernel.
    """
    parameters = kernel.program.parameters
    by_name = {p.name: value for p, value in zip(parameters, arguments, strict=True)}
    memory = GlobalMemory(tensors)
    num_blocks, at_a_time = int(np.prod(grid)), max(1, LANES_AT_A_TIME // threads)
    for first in range(0, num_blocks, at_a_time):
        blocks = np.arange(first, min(first + at_a_time, num_blocks))
        shared = SharedMemory(len(blocks), shared_bytes, kernel.shared_unit)
        kernel.run(BlockGroup(kernel.registers, blocks, grid, threads, shared, memory, by_name))
