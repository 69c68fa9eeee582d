"""PTX text to a list of instructions.

Only the subset that Triton emits: one entry, statements that end with a semicolon, registers that
are declared before use. Braces inside the body open no scope here; a name that is declared twice
with different widths is an error.
"""

import re
from dataclasses import dataclass

from .errors import Unsupported

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


@dataclass(frozen=True)
class Address:
    """[base + offset]."""

    base: "Register | Symbol"
    offset: int


@dataclass(frozen=True)
class Vector:
    """{a, b, ...}."""

    items: tuple["Register | Immediate | Symbol", ...]


@dataclass(frozen=True)
class Pair:
    """p|q: two results."""

    first: "Register | Symbol"
    second: "Register | Symbol"


Operand = Register | Immediate | Symbol | Address | Vector | Pair


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


def parse(text: str) -> Program:
    """The kernel in a PTX file.

    Raises:
        Unsupported: a statement outside the subset.
    """
    text = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)
    entries = list(re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{", text))
    if len(entries) != 1:
        raise Unsupported(f"one .entry expected, found {len(entries)}")
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
            raise Unsupported(f"directive: {statement}")
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
    raise Unsupported("the body of the kernel has no end")


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
    kind, names = re.fullmatch(r"\.reg \.(\w+) (.*)", statement).groups()
    if kind not in WIDTHS:
        raise Unsupported(f"register kind: {statement}")
    for name in _split(names):
        name, count = re.fullmatch(r"%?([\w$]+?)(?:<(\d+)>)?", name).groups()
        for full in [name] if count is None else [f"{name}{i}" for i in range(int(count))]:
            if widths.setdefault(full, WIDTHS[kind]) != WIDTHS[kind]:
                raise Unsupported(f"{full} is declared with two widths: {statement}")


def _parameter(text: str) -> Parameter:
    kind, name = re.fullmatch(r"\.param \.[a-z](\d+).*?([\w$]+)", text.strip()).groups()
    return Parameter(name, int(kind))


def _instruction(line: str, widths: dict[str, int]) -> Instruction:
    guard, negated, rest = None, False, line
    if guarded := re.match(r"@(!?)%?([\w$]+)\s+", line):
        negated, guard, rest = bool(guarded[1]), Register(guarded[2]), line[guarded.end() :]
    opcode = re.match(r"[\w.:]+", rest)[0]
    operands = tuple(_operand(part, widths, line) for part in _split(rest[len(opcode) :]))
    return Instruction(tuple(opcode.split(".")), operands, guard, negated, line)


def _operand(text: str, widths: dict[str, int], line: str) -> Operand:
    if text.startswith("{"):
        return Vector(tuple(_operand(part, widths, line) for part in _split(text[1:-1])))
    if text.startswith("["):
        base, offset = re.fullmatch(r"\[\s*(\S+?)\s*(?:\+\s*(-?\w+)\s*)?\]", text).groups()
        return Address(_operand(base, widths, line), int(offset or "0", 0))
    if "|" in text:
        return Pair(*(_operand(part, widths, line) for part in text.split("|")))
    if SPECIAL_REGISTERS.fullmatch(text) or text.removeprefix("%") in widths:
        return Register(text.removeprefix("%"))
    if float32 := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
        return Immediate(int(float32[1] or float32[2], 16))
    if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    if re.fullmatch(r"[$\w]+", text):
        return Symbol(text)
    raise Unsupported(f"operand {text} in: {line}")


def _split(text: str) -> list[str]:
    """Parts between commas outside brackets."""
    parts = re.split(r",(?![^{\[]*[}\]])", text)
    return [part.strip() for part in parts if part.strip()]
