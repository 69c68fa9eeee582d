"""Finds matrix instructions of sm_90 whose operand descriptor is made from what is no address.

A warpgroup product (HGMMA) reads tiles in shared memory through descriptors, 64-bit values in
uniform registers that hold an address in shared memory. Such an address is made of constants, of
the thread's number and of loop counters. No argument of the kernel and nothing that was loaded
belongs in it. ptxas 12.8 puts them there in some kernels: it takes a descriptor from a register
that it has overwritten. The kernel then reads other shared memory than it should, and its results
are wrong without an error. Emulating PTX cannot show this; the text of the machine code can.

The check follows values through the program. A register is *foreign* while it may hold a value
made from a kernel argument or from loaded data. A descriptor of another tile is not noticed.
"""

import itertools
import re

from .main_loop import sass_lines

FIRST_ARGUMENT = 0x210  # where arguments begin in constant bank 0 of sm_90
_REGISTER = re.compile(r"\b(U?R)(\d+)\b")
_PREDICATE = re.compile(r"!?U?P(\d|T)$")
_WRITES_NOTHING = re.compile(
    r"(ST|STG|STS|STSM|LDGSTS|LDGDEPBAR|DEPBAR|RED|BAR|BRA|BSSY|BSYNC|CALL|EXIT|RET|WARP\w*|MEMBAR"
    r"|FENCE|ERRBAR|NOP|YIELD|CCTL|UTMA\w*|SYNCS|BPT)(\.|$)"
)

Place = tuple[str, int | str]
"""A register, as ("R" or "UR", number), or a word of spilled registers, as ("L", address)."""


class _Instruction:
    """One line of SASS."""

    def __init__(self, line: str) -> None:
        self.text = line
        predicated = re.match(r"@!?U?P\w+\s+", line)
        self.certain = predicated is None
        self.name, _, rest = line[predicated.end() if predicated else 0 :].partition(" ")
        self.operands = [x.strip() for x in re.split(r",(?![^\[]*\])", rest)] if rest else []
        jump = re.search(r"`\((\.L\w+)\)", line) if self.name.startswith("BRA") else None
        self.target = jump[1] if jump else None

    def may_continue(self) -> bool:
        """Whether the next instruction may follow."""
        conditional = any(re.match(r"!?U?P\d", x) for x in self.operands)
        ends = self.name == "EXIT" or (self.name.startswith("BRA") and not conditional)
        return not (ends and self.certain)

    def words(self) -> int:
        """Registers that each 64- or 128-bit operand takes."""
        if product := re.match(r"HGMMA\.64x(\d+)x", self.name):
            return int(product[1]) // 2
        if ".128" in self.name or self.name.endswith(".M88.4"):
            return 4
        wide = ".64" in self.name or ".WIDE" in self.name or self.name.endswith(".M88.2")
        return 2 if wide and "SHF" not in self.name else 1

    def written(self) -> list[Place]:
        return _registers(self.operands[self._first()], self.words()) if self.operands else []

    def read(self) -> set[Place]:
        """Registers that it reads; of 64-bit operands both."""
        words = 2 if ".64" in self.name and self.words() == 2 else 1
        operands = self.operands[self._first() + 1 :]
        found = {place for x in operands for place in _read(x, words)}
        if ".WIDE" in self.name:  # only the addend has 64 bits
            found |= _read(operands[-1], 2)
        return found

    def _first(self) -> int:
        """The place of the operand that is written, behind predicates."""
        predicates = (bool(_PREDICATE.match(x)) for x in self.operands)
        return min(sum(itertools.takewhile(bool, predicates)), len(self.operands) - 1)

    def reads_argument(self) -> bool:
        offsets = re.findall(r"c\[0x0\]\[(0x[0-9a-f]+|U?R)", self.text)
        return any(x[0] != "0" or int(x, 16) >= FIRST_ARGUMENT for x in offsets)


def wrong_products(cubin: bytes) -> list[str]:
    """The warpgroup products of a kernel for sm_90 that read a foreign descriptor."""
    return wrong_products_of(sass_lines(cubin))


def wrong_products_of(lines: list[str]) -> list[str]:
    """The same of labels and instructions."""
    if not any("HGMMA" in line for line in lines):
        return []
    program: list[_Instruction] = []
    labels: dict[str, int] = {}
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = len(program)
        else:
            program.append(_Instruction(line))
    # Foreign places where a stretch of instructions without a jump begins; they only become more.
    begins = {0, *labels.values(), *(i + 1 for i, x in enumerate(program) if x.target)}
    before: dict[int, frozenset[Place]] = {0: frozenset()}
    wrong: dict[int, str] = {}
    pending = [0]
    while pending:
        at = pending.pop()
        foreign = set(before[at])
        follow: list[int] = []
        while at < len(program):
            instruction = program[at]
            if "HGMMA" in instruction.name and _descriptors(instruction) & foreign:
                wrong[at] = instruction.text
            _follow(instruction, foreign)
            if instruction.target in labels:
                follow.append(labels[instruction.target])
            at += 1
            if not instruction.may_continue():
                break
            if at in begins:
                follow.append(at)
                break
        for place in follow:
            merged = before.get(place, frozenset()) | foreign
            if merged != before.get(place) and place < len(program):
                before[place] = merged
                pending.append(place)
    return [wrong[at] for at in sorted(wrong)]


def _follow(instruction: _Instruction, foreign: set[Place]) -> None:
    """Makes of the foreign places before an instruction those after it."""
    name, operands = instruction.name, instruction.operands
    if name.startswith("STL"):
        slots = _slots(operands[0], instruction.words())
        stored = _registers(operands[1], instruction.words())
        _update(foreign, slots, bool(foreign & {*stored}), instruction.certain)
    elif name.startswith("LDL"):
        slots = _slots(operands[1], instruction.words())
        loads_foreign = bool(foreign & {*slots}) or not operands[1].startswith("[R1")
        _update(foreign, instruction.written(), loads_foreign, instruction.certain)
    elif not _WRITES_NOTHING.match(name):
        data = name.startswith(("LD", "ATOM", "HGMMA")) and not name.startswith("LDC")
        foreign_now = data or instruction.reads_argument()
        foreign_now = foreign_now or bool(instruction.read() & foreign)
        _update(foreign, instruction.written(), foreign_now, instruction.certain)


def _update(foreign: set[Place], places: list[Place], are_foreign: bool, certain: bool) -> None:
    if are_foreign:
        foreign.update(places)
    elif certain:
        foreign.difference_update(places)


def _registers(operand: str, words: int) -> list[Place]:
    """A register and those after it; none if the operand is something else."""
    found = _REGISTER.match(operand)
    return [(found[1], int(found[2]) + i) for i in range(words)] if found else []


def _read(operand: str, words: int) -> set[Place]:
    """The registers that are named in an operand, and those after them."""
    named = _REGISTER.findall(operand)
    return {(kind, int(number) + i) for kind, number in named for i in range(words)}


def _slots(address: str, words: int) -> list[Place]:
    """Words of spilled registers, such as [R1+0x4]."""
    base, _, offset = address.strip("[]").partition("+")
    first = int(offset, 16) if offset else 0
    return [("L", f"{base}+{first + 4 * i}") for i in range(words)]


def _descriptors(instruction: _Instruction) -> set[Place]:
    """The registers of its descriptors: two pairs, the first unused if registers hold the left
    operand."""
    places: set[Place] = set()
    for operand in instruction.operands:
        if found := re.match(r"gdesc\[UR(\d+)\]", operand):
            left_in_registers = instruction.operands[1].startswith("R")
            first = int(found[1])
            places |= {("UR", i) for i in range(first + 2 * left_in_registers, first + 4)}
    return places
