"""A program as straight pieces of Python functions, and how a group of blocks runs through them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .accesses import AccessShape
from .async_copies import check_all_waited_for
from .blocks import BlockGroup, Operation
from .errors import KernelFaultError, UnsupportedError
from .instructions import build
from .program import Instruction, Program, Symbol, constant
from .registers import RegisterMap

END = -1


@dataclass(frozen=True)
class Branch:
    """A jump to a piece, or to the end of the kernel."""

    target: int
    predicate: int | None
    """Row of the guard; None: always taken."""
    negated: bool
    line: str


@dataclass
class Piece:
    """Instructions without a branch, then at most one branch."""

    instructions: list[Instruction] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    exit: Instruction | None = None
    branch: Branch | None = None
    visits: int = 0
    """How often groups of blocks came here."""


class Kernel:
    """A compiled program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.registers = RegisterMap(program)
        self.shared_unit = _smallest_shared_access(program)
        self.pieces, targets = _cut(program)
        for piece in self.pieces:
            piece.operations = [build(x, self.registers) for x in piece.instructions]
            if piece.exit is not None:
                piece.branch = self._branch(piece.exit, targets)

    def _branch(self, instruction: Instruction, targets: dict[str, int]) -> Branch:
        if instruction.opcode not in (("bra",), ("bra", "uni"), ("ret",)):
            raise UnsupportedError(instruction.line)
        target = END
        if instruction.opcode[0] == "bra":
            (label,) = instruction.operands
            assert isinstance(label, Symbol), label
            target = targets[label.name]
        guard = instruction.guard
        predicate = None if guard is None else self.registers.row(guard, "p")
        return Branch(target, predicate, instruction.guard_negated, instruction.line)

    def visits(self, instruction: Instruction) -> int:
        """How often groups of blocks have run an instruction."""
        return sum(p.visits for p in self.pieces if any(x is instruction for x in p.instructions))

    def run(self, group: BlockGroup) -> None:
        """Runs blocks from the first instruction to their end.

        Raises:
            KernelFaultError: a fault of the kernel.
        """
        waiting = [(group, 0)]
        with np.errstate(all="ignore"):
            while waiting:
                current, place = waiting.pop()
                if place == END:
                    check_all_waited_for(current)
                else:
                    waiting += self._run_piece(current, place)

    def _run_piece(self, group: BlockGroup, place: int) -> list[tuple[BlockGroup, int]]:
        """Where the blocks go on: one group, or two where they part."""
        piece = self.pieces[place]
        piece.visits += 1
        for instruction, operation in zip(piece.instructions, piece.operations, strict=True):
            try:
                operation(group)
            except (ValueError, IndexError, TypeError) as error:
                raise UnsupportedError(f"{error} in: {instruction.line}") from error
        branch = piece.branch
        if branch is None:
            return [(group, place + 1)]
        taken = _taken(group, branch)
        if taken.all():
            return [(group, branch.target)]
        if not taken.any():
            return [(group, place + 1)]
        leaving, staying = group.take(np.flatnonzero(taken)), group.take(np.flatnonzero(~taken))
        return [(leaving, branch.target), (staying, place + 1)]


def _taken(group: BlockGroup, branch: Branch) -> NDArray:
    """Which blocks take a branch."""
    if branch.predicate is None:
        return np.ones(len(group.blocks), bool)
    predicate = group.rows["p"][branch.predicate]
    lanes = predicate.reshape(len(group.blocks), -1) != branch.negated
    taken = lanes.any(1)
    if (taken != lanes.all(1)).any():
        raise KernelFaultError(f"the lanes of a block disagree on a branch: {branch.line}")
    return taken


def _cut(program: Program) -> tuple[list[Piece], dict[str, int]]:
    """(pieces in order, {label: piece})."""
    starts: dict[int, list[str]] = {}
    for label, index in program.labels.items():
        starts.setdefault(index, []).append(label)
    pieces, targets = [Piece()], {}
    used = {x.operands[0] for x in program.instructions if x.opcode[0] == "bra"}
    for index, instruction in enumerate(program.instructions):
        labels = [label for label in starts.get(index, ()) if Symbol(label) in used]
        last = pieces[-1]
        if last.exit is not None or (labels and last.instructions):
            pieces.append(Piece())
        targets |= dict.fromkeys(labels, len(pieces) - 1)
        if instruction.opcode[0] in ("bra", "ret"):
            pieces[-1].exit = instruction
        else:
            pieces[-1].instructions.append(instruction)
    if pieces[-1].exit is None:
        raise UnsupportedError("the kernel does not end in ret")
    return pieces, targets


def _smallest_shared_access(program: Program) -> int:
    """Bytes; every access is a multiple of them."""
    sizes = [16]
    for instruction in program.instructions:
        name, *modifiers = instruction.opcode
        if name == "cp" and len(instruction.operands) > 2:
            sizes.append(constant(instruction.operands[2]))
        elif name in ("ld", "st") and any(m.startswith("shared") for m in modifiers):
            sizes.append(AccessShape(instruction).num_bytes)
    return min(sizes)
