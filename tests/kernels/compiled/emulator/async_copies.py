"""cp.async: copies from global to shared memory that run on until they are waited for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .accesses import address_function
from .blocks import BlockGroup, Operation, active_lanes
from .errors import KernelFaultError, UnsupportedError
from .program import Instruction, constant
from .registers import RegisterMap

_FORMS = (("ca", "shared", "global"), ("cg", "shared", "global"),
          ("ca", "shared::cta", "global"), ("cg", "shared::cta", "global"))  # fmt: skip


@dataclass
class Copy:
    """One cp.async of some lanes; the data, read at the issue, lands when it is waited for."""

    lanes: NDArray
    at: NDArray
    data: NDArray
    """(lanes, bytes)."""
    line: str

    def take(self, blocks: NDArray, threads: int) -> "Copy":
        """The copy for a selection of the blocks."""
        here, place = np.nonzero(self.lanes[:, None] // threads == blocks)
        lanes = place * threads + self.lanes[here] % threads
        return Copy(lanes, self.at[here], self.data[here], self.line)


def build_cp(instruction: Instruction, registers: RegisterMap) -> Operation:
    """cp.async and its groups."""
    form = instruction.opcode[1:]
    if form == ("async", "commit_group"):
        return lambda group: group.copies.commit()
    if form == ("async", "wait_group"):
        count = constant(instruction.operands[0])
        return lambda group: _land(group, group.copies.completed(count))
    if form == ("async", "wait_all"):
        return _wait_for_all
    if form[0] != "async" or form[1:] not in _FORMS:
        raise UnsupportedError(instruction.line)
    return _build_copy(instruction, registers)


def _wait_for_all(group: BlockGroup) -> None:
    group.copies.commit()
    _land(group, group.copies.completed(0))


def _land(group: BlockGroup, copies: list[Copy]) -> None:
    for copy in copies:
        bases, warps = group.bases[copy.lanes], group.warps[copy.lanes]
        group.shared.end_copy(copy.at, copy.data, bases, warps)


def _build_copy(instruction: Instruction, registers: RegisterMap) -> Operation:
    """cp.async [to], [from], bytes[, bytes that are read]: what is not read is zero."""
    target, source, size, *taken = instruction.operands
    num_bytes, line = constant(size), instruction.line
    selected = active_lanes(instruction, registers)
    to = address_function(target, registers, "shared")
    of = address_function(source, registers, "global")
    taken_row = registers.row(taken[0], "u32") if taken else None

    def run(group: BlockGroup) -> None:
        lanes = np.arange(group.num_lanes)[selected(group)]
        at = to(group, lanes)
        data = np.zeros((len(lanes), num_bytes), np.uint8)
        read = np.full(len(lanes), num_bytes)
        if taken_row is not None:
            read = group.rows["u32"][taken_row][lanes]
        if ((read != 0) & (read != num_bytes)).any():
            raise UnsupportedError(f"a copy of a part: {line}")
        reading = lanes[read != 0]
        words = min(num_bytes, 8)
        values = group.memory.load(
            of(group, reading), words, num_bytes // words, group.block_of_lane[reading], line
        )
        data[read != 0] = values.view(np.uint8)
        group.shared.begin_copy(at, num_bytes, group.bases[lanes], group.warps[lanes], line)
        group.copies.uncommitted.append(Copy(lanes, at, data, line))

    return run


def check_all_waited_for(group: BlockGroup) -> None:
    """At the end of a block nothing may be in flight."""
    for name, pending in (("cp.async", group.copies), ("wgmma", group.products)):
        if lines := pending.all_lines():
            raise KernelFaultError(f"{name} is never waited for: {lines[0]}")
