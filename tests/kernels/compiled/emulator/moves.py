"""Moves, selections and conversions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .blocks import BlockGroup, Operation
from .errors import UnsupportedError
from .numbers import from_bfloat16, to_bfloat16, to_float16
from .program import Instruction, Operand, Symbol, Vector
from .registers import RegisterMap, numpy_type


def build_mov(instruction: Instruction, registers: RegisterMap) -> Operation:
    """mov.type d, a; one of them may be a pair of registers of half the width."""
    result, source = instruction.operands
    if len(instruction.opcode) != 2:
        raise UnsupportedError(instruction.line)
    kind = instruction.opcode[1]
    if kind == "pred":
        return _copy(registers.row(source, "p"), "p", registers.row(result, "p"), "p")
    bits = int(kind[1:])
    whole = f"u{bits}"
    if isinstance(result, Vector):
        parts = _half_kinds(result, bits)
        row = registers.row(source, whole)
        copies = [(row, part, item, f"u{bits // 2}") for part, item in parts]
        return _copies(
            [(a, k, registers.row(x, own), own) for a, k, x, own in copies if not _is_sink(x)]
        )
    if isinstance(source, Vector):
        parts = _half_kinds(source, bits)
        row, own = registers.row(result, whole), f"u{bits // 2}"
        return _copies([(registers.row(item, own), own, row, part) for part, item in parts])
    return _copy(registers.row(source, whole), whole, registers.row(result, whole), whole)


def _is_sink(operand: Operand) -> bool:
    return operand == Symbol("_")


def _half_kinds(vector: Vector, bits: int) -> list[tuple[str, Operand]]:
    if len(vector.items) != 2 or bits not in (32, 64):
        raise UnsupportedError(f"a move between {bits} bits and {len(vector.items)} registers")
    return [(f"low{bits // 2}", vector.items[0]), (f"high{bits // 2}", vector.items[1])]


def _copy(source: int, source_kind: str, result: int, result_kind: str) -> Operation:
    def run(group: BlockGroup) -> None:
        group.rows[result_kind][result][:] = group.rows[source_kind][source]

    return run


def _copies(copies: list[tuple[int, str, int, str]]) -> Operation:
    """All sources are read before any result is written."""

    def run(group: BlockGroup) -> None:
        rows = group.rows
        values = [rows[kind][row].copy() for row, kind, _, _ in copies]
        for value, (_, _, row, kind) in zip(values, copies, strict=True):
            rows[kind][row][:] = value

    return run


def build_cvta(instruction: Instruction, registers: RegisterMap) -> Operation:
    """Generic and global addresses are the same numbers here."""
    if instruction.opcode[1:] not in (("to", "global", "u64"), ("global", "u64")):
        raise UnsupportedError(instruction.line)
    result, source = instruction.operands
    return _copy(registers.row(source, "u64"), "u64", registers.row(result, "u64"), "u64")


def build_selp(instruction: Instruction, registers: RegisterMap) -> Operation:
    """selp.type d, a, b, p: a where p."""
    (_, kind), bits = instruction.opcode, int(instruction.opcode[1][1:])
    if kind[0] not in "bsuf":
        raise UnsupportedError(instruction.line)
    own = f"u{bits}"
    result, first, second, predicate = instruction.operands
    out, a, b = (registers.row(x, own) for x in (result, first, second))
    p = registers.row(predicate, "p")

    def run(group: BlockGroup) -> None:
        rows = group.rows[own]
        rows[out][:] = np.where(group.rows["p"][p], rows[a], rows[b])

    return run


_TO_INTEGER = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def build_cvt(instruction: Instruction, registers: RegisterMap) -> Operation:
    """cvt[.rounding].to.from, between integers, floats of 16, 32 and 64 bits, bfloat16 and TF32."""
    _, *modifiers, to, of = instruction.opcode
    if to in ("bf16x2", "f16x2"):
        return _build_pair_conversion(instruction, registers)
    result, source = instruction.operands
    convert, own = _conversion(to, of, modifiers, instruction.line)
    of_kind = "u16" if of == "bf16" else of
    a, out = registers.row(source, of_kind), registers.row(result, own)

    def run(group: BlockGroup) -> None:
        group.rows[own][out][:] = convert(group.rows[of_kind][a])

    return run


def _conversion(
    to: str, of: str, modifiers: list[str], line: str
) -> tuple[Callable[[NDArray], NDArray], str]:
    """(function of the source's numbers, kind of the result)."""
    is_float = {kind: kind[0] in "fbt" for kind in (to, of)}
    if not is_float[to] and not is_float[of] and not modifiers:
        small = to in ("u8", "s8")
        return lambda x: x.astype(numpy_type(to)), f"{to[0]}16" if small else to
    if to == "tf32" and of == "f32" and modifiers == ["rna"]:
        return _round_to_tf32, "u32"
    if not is_float[to]:
        if of == "bf16" or len(modifiers) != 1 or modifiers[0] not in _TO_INTEGER:
            raise UnsupportedError(line)
        return _to_integer(_TO_INTEGER[modifiers[0]], numpy_type(to)), to
    exact = is_float[of] and _width(to) > _width(of)
    if modifiers not in ([[], ["ftz"]] if exact else [["rn"]]):
        raise UnsupportedError(line)
    if of == "bf16":
        return from_bfloat16, "f32"
    if to == "bf16":
        return lambda x: to_bfloat16(x.astype(np.float32)), "u16"
    return lambda x: x.astype(numpy_type(to)), to


def _width(kind: str) -> int:
    return int(kind.lstrip("bfst"))


def _to_integer(rounded: Callable[[NDArray], NDArray], to: np.dtype) -> Callable:
    """Saturates; NaN gives zero."""
    limits = np.iinfo(to)

    def convert(x: NDArray) -> NDArray:
        whole = rounded(np.nan_to_num(x.astype(np.float64), nan=0.0))
        inside = np.clip(whole, float(limits.min), float(limits.max))
        largest = inside >= float(limits.max)
        result = np.where(largest, 0.0, inside).astype(to)
        return np.where(largest, to.type(limits.max), result)

    return convert


def _round_to_tf32(x: NDArray) -> NDArray:
    """Ties go away from zero."""
    return (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)


def _build_pair_conversion(instruction: Instruction, registers: RegisterMap) -> Operation:
    """cvt.rn.bf16x2.f32 d, a, b: a goes to the high half."""
    _, *modifiers, to, of = instruction.opcode
    if modifiers != ["rn"] or of != "f32":
        raise UnsupportedError(instruction.line)
    convert = to_bfloat16 if to == "bf16x2" else to_float16
    result, first, second = instruction.operands
    out = registers.row(result, "u32")
    high, low = registers.row(first, "f32"), registers.row(second, "f32")

    def run(group: BlockGroup) -> None:
        rows = group.rows
        highs, lows = convert(rows["f32"][high]), convert(rows["f32"][low])
        rows["high16"][out][:] = highs
        rows["low16"][out][:] = lows

    return run
