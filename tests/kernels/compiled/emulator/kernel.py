"""A program as straight pieces of Python functions, and how a group of blocks runs through them.

Every instruction becomes one function, once per kernel: its operands are resolved to rows of the
register file and its modifiers are checked. What is left for each step is arithmetic on rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .accesses import AccessShape, build_load, build_store
from .async_copies import build_cp, check_all_waited_for
from .blocks import WARP, BlockGroup, Builder, Operation, active_lanes
from .elementwise import build_elementwise, build_setp
from .errors import Report, Unsupported
from .lanes import build_redux, build_shfl
from .matrix import build_ldmatrix, build_mma, build_stmatrix
from .moves import build_bfe, build_bitwise, build_cvt, build_cvta, build_mov, build_selp
from .program import Immediate, Instruction, Pair, Program, Symbol, Vector
from .registers import RegisterMap
from .wgmma import build_wgmma


def _build_barrier(instruction: Instruction, registers: RegisterMap) -> Operation:
    """bar.sync 0: all warps of the block."""
    if instruction.opcode != ("bar", "sync") or instruction.operands != (Immediate(0),):
        raise Unsupported(instruction.line)
    return lambda group: group.shared.barrier()


def _build_fence(instruction: Instruction, registers: RegisterMap) -> Operation:
    """Orders the proxies of shared memory, which are one here."""
    if instruction.opcode[1:] not in (("proxy", "async"), ("proxy", "async", "shared::cta")):
        raise Unsupported(instruction.line)
    return lambda group: None


# Builders that write registers only; a guard keeps the old values of the other lanes.
_REGISTER_BUILDERS: dict[str, Builder] = {
    "setp": build_setp, "mov": build_mov, "selp": build_selp, "cvt": build_cvt,
    "cvta": build_cvta, "bfe": build_bfe,
    **dict.fromkeys(("prmt", "lop3", "shf", "popc", "bfi"), build_bitwise),
}  # fmt: skip
# Builders that heed or refuse a guard themselves.
_OTHER_BUILDERS: dict[str, Builder] = {
    "ld": build_load, "st": build_store, "cp": build_cp, "bar": _build_barrier,
    "fence": _build_fence, "shfl": build_shfl, "redux": build_redux, "mma": build_mma,
    "ldmatrix": build_ldmatrix, "stmatrix": build_stmatrix, "wgmma": build_wgmma,
}  # fmt: skip


def build(instruction: Instruction, registers: RegisterMap) -> Operation:
    """The function of one instruction.

    Raises:
        Unsupported: an unknown instruction or modifier; the message has the PTX line.
    """
    name = instruction.opcode[0]
    try:
        if name in _OTHER_BUILDERS:
            if instruction.guard is not None and name in ("bar", "fence"):
                raise Unsupported("a guard")
            return _OTHER_BUILDERS[name](instruction, registers)
        operation = _REGISTER_BUILDERS.get(name, build_elementwise)(instruction, registers)
        if instruction.guard is None:
            return operation
        return _predicated(operation, instruction, registers)
    except (Unsupported, ValueError, KeyError) as error:
        raise Unsupported(f"{error} in: {instruction.line}") from error


def _predicated(
    operation: Operation, instruction: Instruction, registers: RegisterMap
) -> Operation:
    """``operation`` on the lanes of the guard only."""
    result = instruction.operands[0]
    written = result.items if isinstance(result, Vector) else (result,)
    if isinstance(result, Pair):
        written = (result.first, result.second)
    kinds = {1: "p", 16: "u16", 32: "u32", 64: "u64"}
    places = [
        (kinds[registers.width(x)], registers.row(x, kinds[registers.width(x)]))
        for x in written
        if x != Symbol("_")
    ]
    lanes_of = active_lanes(instruction, registers)

    def run(group: BlockGroup) -> None:
        lanes = lanes_of(group)
        before = [group.rows[kind][row].copy() for kind, row in places]
        operation(group)
        for (kind, row), old in zip(places, before, strict=True):
            old[lanes] = group.rows[kind][row][lanes]
            group.rows[kind][row][:] = old

    return run


@dataclass
class Piece:
    """Instructions without a branch, then at most one branch or return."""

    operations: list[Operation]
    lines: list[str]
    branch: Instruction | None = None


class Kernel:
    """A compiled program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.registers = RegisterMap(program)
        self.shared_unit = _smallest_shared_access(program)
        self._targets: dict[str, int] = {}
        """{label: piece}."""
        self._pieces = self._cut()
        self.steps = 0

    def _cut(self) -> list[Piece]:
        branches = [i for i in self.program.instructions if i.opcode[0] == "bra"]
        used = {i.operands[-1].name for i in branches}
        starts: dict[int, list[str]] = {}
        for label, index in self.program.labels.items():
            if label in used:
                starts.setdefault(index, []).append(label)
        pieces = [Piece([], [])]
        for index, instruction in enumerate(self.program.instructions):
            if index in starts or pieces[-1].branch is not None:
                if pieces[-1].operations or pieces[-1].branch is not None:
                    pieces.append(Piece([], []))
                for label in starts.get(index, ()):
                    self._targets[label] = len(pieces) - 1
            if instruction.opcode[0] in ("bra", "ret"):
                if instruction.opcode not in (("bra",), ("bra", "uni"), ("ret",)):
                    raise Unsupported(instruction.line)
                pieces[-1].branch = instruction
            else:
                pieces[-1].operations.append(build(instruction, self.registers))
                pieces[-1].lines.append(instruction.line)
        if pieces[-1].branch is None:
            raise Unsupported("the kernel does not end in ret")
        return pieces

    def run(self, group: BlockGroup) -> None:
        """Runs blocks from the first instruction to their end.

        Raises:
            Report: a fault of the kernel.
        """
        with np.errstate(all="ignore"):
            waiting = [(group, 0)]
            while waiting:
                current, place = waiting.pop()
                while place is not None:
                    place, parted = self._run_piece(current, place)
                    if parted is not None:
                        current = parted[0]
                        waiting.append(parted[1])

    def _run_piece(self, group: BlockGroup, place: int):
        """(next piece or None at the end, None or what to do where the blocks part)."""
        piece = self._pieces[place]
        self.steps += len(piece.operations)
        for operation in piece.operations:
            operation(group)
        branch = piece.branch
        if branch is None:
            return place + 1, None
        target = self._targets[branch.operands[-1].name] if branch.opcode[0] == "bra" else None
        if branch.guard is None:
            return self._arrived(group, target), None
        taken = self._taken(group, branch)
        if taken.all():
            return self._arrived(group, target), None
        if not taken.any():
            return place + 1, None
        leaving, staying = group.take(np.flatnonzero(taken)), group.take(np.flatnonzero(~taken))
        if target is None:
            check_all_waited_for(leaving)
            return place + 1, (staying, None)
        return place + 1, (staying, (leaving, target))

    def _arrived(self, group: BlockGroup, target: int | None) -> int | None:
        if target is None:
            check_all_waited_for(group)
        return target

    def _taken(self, group: BlockGroup, branch: Instruction) -> NDArray:
        """Which blocks take a branch."""
        predicate = group.rows["p"][self.registers.row(branch.guard, "p")]
        lanes = predicate.reshape(len(group.blocks), -1) ^ branch.guard_negated
        taken = lanes.any(1)
        if (taken != lanes.all(1)).any():
            raise Report(f"the lanes of a block disagree on a branch: {branch.line}")
        return taken


def _smallest_shared_access(program: Program) -> int:
    sizes = [16]
    for instruction in program.instructions:
        opcode = instruction.opcode
        if opcode[:2] in (("cp", "async"),) and len(instruction.operands) > 2:
            sizes.append(instruction.operands[2].value)
        elif opcode[0] in ("ld", "st") and opcode[1].startswith("shared"):
            sizes.append(AccessShape(instruction).num_bytes)
    return min(sizes)
