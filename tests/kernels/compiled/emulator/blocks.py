"""The state of a group of blocks that run together, and how groups part.

Blocks whose control flow agrees run as one: every array has the lanes of all of them, block after
block. Where a branch parts them, each side goes on as a group of its own (``BlockGroup.take``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .global_memory import GlobalMemory
from .program import Instruction
from .registers import RegisterFile, RegisterMap
from .shared_memory import SharedMemory

WARP = 32
WARPGROUP = 128


@dataclass
class Pending:
    """Asynchronous operations: those since the last commit, and the committed groups in order."""

    uncommitted: list[Any] = field(default_factory=list)
    groups: list[list[Any]] = field(default_factory=list)

    def commit(self) -> None:
        """Closes a group, which may be empty."""
        self.groups.append(self.uncommitted)
        self.uncommitted = []

    def completed(self, still_pending: int) -> list[Any]:
        """Takes out the operations of all but the last ``still_pending`` groups."""
        count = max(0, len(self.groups) - still_pending)
        done, self.groups = self.groups[:count], self.groups[count:]
        return [operation for group in done for operation in group]

    def all_lines(self) -> list[str]:
        """PTX lines of what nobody has waited for."""
        groups = [*self.groups, self.uncommitted]
        return [operation.line for group in groups for operation in group]

    def take(self, blocks: NDArray, threads: int) -> "Pending":
        """The same operations for a selection of the blocks."""

        def part(group: list[Any]) -> list[Any]:
            return [operation.take(blocks, threads) for operation in group]

        return Pending(part(self.uncommitted), [part(group) for group in self.groups])


class BlockGroup:
    """Registers, shared memory and asynchronous operations of some blocks of a grid."""

    def __init__(
        self,
        registers: RegisterMap,
        blocks: NDArray,
        grid: tuple[int, int, int],
        threads: int,
        shared: SharedMemory,
        memory: GlobalMemory,
        parameters: Mapping[str, int],
    ) -> None:
        self.blocks, self.threads = blocks, threads
        self.shared, self.memory, self.parameters = shared, memory, parameters
        special = _special_registers(blocks, grid, threads)
        self.registers = RegisterFile(registers, special, len(blocks) * threads)
        self.copies, self.products = Pending(), Pending()
        self._number_lanes()

    def _number_lanes(self) -> None:
        self.num_lanes = len(self.blocks) * self.threads
        self.rows = self.registers.rows
        lanes = np.arange(self.num_lanes)
        self.warps = (lanes % self.threads // WARP).astype(np.int32)
        self.block_of_lane = self.blocks[lanes // self.threads].astype(np.int32)
        self.bases = lanes // self.threads * self.shared.stride
        """Where the shared memory of each lane's block starts."""

    def take(self, chosen: NDArray) -> "BlockGroup":
        """A copy with the blocks at these positions of the group."""
        part = object.__new__(BlockGroup)
        part.__dict__.update(self.__dict__)
        part.blocks = self.blocks[chosen]
        part.registers = self.registers.take(lanes_of(chosen, self.threads))
        part.shared = self.shared.take(chosen)
        part.copies = self.copies.take(chosen, self.threads)
        part.products = self.products.take(chosen, self.threads)
        part._number_lanes()
        return part


Operation = Callable[[BlockGroup], None]
Builder = Callable[[Instruction, RegisterMap], Operation]


def lanes_of(blocks: NDArray, threads: int) -> NDArray:
    """The lanes of the blocks at these positions of a group."""
    return (blocks[:, None] * threads + np.arange(threads)).reshape(-1)


def active_lanes(
    instruction: Instruction, registers: RegisterMap
) -> Callable[[BlockGroup], slice | NDArray]:
    """A function that selects the lanes that take part in a guarded instruction."""
    if instruction.guard is None:
        return lambda group: slice(None)
    row, negated = registers.row(instruction.guard, "p"), instruction.guard_negated

    def select(group: BlockGroup) -> NDArray:
        predicate = group.rows["p"][row]
        return np.flatnonzero(~predicate if negated else predicate)

    return select


def _special_registers(
    blocks: NDArray, grid: tuple[int, int, int], threads: int
) -> dict[str, NDArray]:
    thread = np.tile(np.arange(threads, dtype=np.uint32), len(blocks))
    block = np.repeat(blocks, threads).astype(np.uint32)
    columns, rows, _ = grid
    places = {"x": block % columns, "y": block // columns % rows, "z": block // (columns * rows)}
    special = {"laneid": thread % WARP}
    for axis, size in zip("xyz", grid, strict=True):
        first = axis == "x"
        special[f"tid.{axis}"] = thread if first else np.zeros_like(thread)
        special[f"ntid.{axis}"] = np.full_like(thread, threads if first else 1)
        special[f"ctaid.{axis}"] = places[axis]
        special[f"nctaid.{axis}"] = np.full_like(thread, size)
    return special
