"""PTX text to a list of instructions.

Only the subset that Triton emits: one entry, statements that end with a semicolon, registers that
are declared before use. Braces inside the body open no scope here; a name that is declared twice
with different widths is an error.
"""

import re
from dataclasses import dataclass

from .errors import UnsupportedError

SPECIAL_REGISTERS = re.compile(r"%(tid|ntid|ctaid|nctaid)\.[xyz]|%laneid")
WIDTHS = {"pred": 1, "b16": 16, "b32": 32, "b64": 64, "f32": 32, "f64": 64, "u32": 32, "u64": 64}


@dataclass(frozen=True)
class Register:
    """A declared or a special register, without the percent sign."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """A number in the instruction; of a floating-point number the bits."""

    value: int


@dataclass(frozen=True)
class Symbol:
    """The name of a parameter, of shared memory or of a label; _ stands for no register."""

    name: str


Scalar = Register | Immediate | Symbol


@dataclass(frozen=True)
class Address:
    """[base + offset]."""

    base: Scalar
    offset: int


@dataclass(frozen=True)
class Vector:
    """{a, b, ...}."""

    items: tuple[Scalar, ...]


@dataclass(frozen=True)
class Pair:
    """p|q: two results."""

    first: Scalar
    second: Scalar


Operand = Scalar | Address | Vector | Pair


@dataclass(frozen=True)
class Instruction:
    """One statement; ``opcode`` is split at its dots."""

    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    """The predicate under which lanes take part."""
    guard_negated: bool
    line: str


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter; ``bits`` is its width."""

    name: str
    bits: int


@dataclass(frozen=True)
class Program:
    """One kernel."""

    name: str
    parameters: tuple[Parameter, ...]
    widths: dict[str, int]
    """{register: bits}; 1 for a predicate."""
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    """{label: index of the instruction behind it}."""


def constant(operand: Operand) -> int:
    """The number that an operand must be."""
    if not isinstance(operand, Immediate):
        raise UnsupportedError(f"a number is expected, got {operand}")
    return operand.value


def parse(text: str) -> Program:
    """The kernel in a PTX file.

    Raises:
        UnsupportedError: a statement outside the subset.
    """
    text = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)
    entries = list(re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{", text))
    if len(entries) != 1:
        raise UnsupportedError(f"one .entry expected, found {len(entries)}")
    entry = entries[0]
    widths: dict[str, int] = {}
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in _statements(_body(text, entry.end())):
        if statement.endswith(":"):
            labels[statement[:-1]] = len(instructions)
        elif statement.startswith(".reg"):
            _declare(statement, widths)
        elif statement.startswith("."):
            raise UnsupportedError(f"directive: {statement}")
        else:
            instructions.append(_instruction(statement, widths))
    parameters = tuple(_parameter(part) for part in _split(entry[2]))
    return Program(entry[1], parameters, widths, tuple(instructions), labels)


def _body(text: str, start: int) -> str:
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : start + brace.start()]
    raise UnsupportedError("the body of the kernel has no end")


def _statements(body: str) -> list[str]:
    """Instructions and declarations without their semicolon, labels with their colon."""
    lines = [line for line in body.splitlines() if not re.match(r"\s*\.(loc|pragma)\b", line)]
    found: list[str] = []
    for piece in " ".join(lines).split(";"):
        rest = piece.strip()
        while label := re.match(r"(\$?\w+):\s*|[{}]\s*", rest):
            if label[1]:
                found.append(label[1] + ":")
            rest = rest[label.end() :]
        if rest:
            found.append(" ".join(rest.split()))
    return found


def _declare(statement: str, widths: dict[str, int]) -> None:
    kind, names = _groups(r"\.reg \.(\w+) (.*)", statement)
    if kind not in WIDTHS:
        raise UnsupportedError(f"register kind: {statement}")
    for name in _split(names):
        name, count = _groups(r"%?([\w$]+?)(?:<(\d+)>)?", name)
        for full in [name] if count is None else [f"{name}{i}" for i in range(int(count))]:
            if widths.setdefault(full, WIDTHS[kind]) != WIDTHS[kind]:
                raise UnsupportedError(f"{full} is declared with two widths: {statement}")


def _parameter(text: str) -> Parameter:
    kind, name = _groups(r"\.param \.[a-z](\d+).*?([\w$]+)", text)
    return Parameter(name, int(kind))


def _instruction(line: str, widths: dict[str, int]) -> Instruction:
    guard, negated, rest = None, False, line
    if guarded := re.match(r"@(!?)%?([\w$]+)\s+", line):
        negated, guard, rest = bool(guarded[1]), Register(guarded[2]), line[guarded.end() :]
    opcode, rest = _groups(r"([\w.:]+)(.*)", rest)
    operands = tuple(_operand(part, widths, line) for part in _split(rest))
    return Instruction(tuple(opcode.split(".")), operands, guard, negated, line)


def _operand(text: str, widths: dict[str, int], line: str) -> Operand:
    if text.startswith("{"):
        return Vector(tuple(_scalar(part, widths, line) for part in _split(text[1:-1])))
    if text.startswith("["):
        base, offset = _groups(r"\[\s*(\S+?)\s*(?:\+\s*(-?\w+)\s*)?\]", text)
        return Address(_scalar(base, widths, line), int(offset or "0", 0))
    if "|" in text:
        first, second = (_scalar(part, widths, line) for part in text.split("|"))
        return Pair(first, second)
    return _scalar(text, widths, line)


def _scalar(text: str, widths: dict[str, int], line: str) -> Scalar:
    if SPECIAL_REGISTERS.fullmatch(text) or text.removeprefix("%") in widths:
        return Register(text.removeprefix("%"))
    if float32 := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
        return Immediate(int(float32[1] or float32[2], 16))
    if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    if re.fullmatch(r"[$\w]+", text):
        return Symbol(text)
    raise UnsupportedError(f"operand {text} in: {line}")


def _groups(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern that the whole text must match."""
    found = re.fullmatch(pattern, text.strip())
    if found is None:
        raise UnsupportedError(f"statement: {text}")
    return found.groups()


def _split(text: str) -> list[str]:
    """Parts between commas outside brackets."""
    parts = re.split(r",(?![^{\[]*[}\]])", text)
    return [part.strip() for part in parts if part.strip()]
