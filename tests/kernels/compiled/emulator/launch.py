"""Runs a grid: as many blocks at a time as fit a number of lanes."""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Launch:
    """A kernel with everything that it runs on."""

    kernel: Kernel
    grid: tuple[int, int, int]
    threads: int
    """Per block."""
    shared_bytes: int
    arguments: Sequence[int]
    """The bits of the parameters in order."""
    tensors: Sequence[torch.Tensor]
    """All memory that may be touched."""

    def run(self) -> None:
        """Runs all blocks of the grid.

        Raises:
            KernelFaultError: a fault of the kernel.
        """
        kernel, threads = self.kernel, self.threads
        names = [parameter.name for parameter in kernel.program.parameters]
        parameters = dict(zip(names, self.arguments, strict=True))
        memory = GlobalMemory(self.tensors)
        num_blocks, at_a_time = int(np.prod(self.grid)), max(1, LANES_AT_A_TIME // threads)
        for first in range(0, num_blocks, at_a_time):
            blocks = np.arange(first, min(first + at_a_time, num_blocks))
            shared = SharedMemory(len(blocks), self.shared_bytes, kernel.shared_unit)
            registers = kernel.registers
            kernel.run(
                BlockGroup(registers, blocks, self.grid, threads, shared, memory, parameters)
            )
