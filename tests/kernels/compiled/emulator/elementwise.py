"""Arithmetic and logic, each lane for itself.

A table holds every opcode with all its modifiers; what is not in it is unknown. An entry is the
kinds of the operands and a function that takes the operands and, last, the array of results, as
numpy's own functions do.

Float: fused multiply-add rounds once from float64, whose product of two float32 is exact; the sum's
own rounding can differ in the last place in rare ties. ``ftz`` flushes subnormal operands and
results to zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedError
from .numbers import from_bfloat16
from .program import Instruction
from .registers import RegisterMap, numpy_type

Function = Callable[..., Any]
_SMALLEST_NORMAL = np.float32(2.0**-126)


def _flushed(x: NDArray) -> NDArray:
    return np.where(np.abs(x) < _SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)


def flushing(function: Function) -> Function:
    """``function`` with subnormal operands and results set to zero."""

    def run(*operands: NDArray) -> None:
        *inputs, out = operands
        result = np.empty_like(out)
        function(*(_flushed(x) for x in inputs), result)
        np.copyto(out, _flushed(result))

    return run


def _multiply_add(a: NDArray, b: NDArray, c: NDArray, out: NDArray) -> None:
    np.add(a * b, c, out)


def _fused_multiply_add(a: NDArray, b: NDArray, c: NDArray, out: NDArray) -> None:
    product = np.multiply(a, b, dtype=np.float64)
    product += c
    out[...] = product


def _mixed(function: Function, convert: Function, num_narrow: int) -> Function:
    """float32 arithmetic whose first operands are 16 bits wide."""

    def run(*operands: NDArray) -> None:
        narrow, rest = operands[:num_narrow], operands[num_narrow:]
        function(*(convert(x) for x in narrow), *rest)

    return run


def _wide(kind: str, add: bool) -> Function:
    wide = numpy_type(f"{kind[0]}64")

    def run(a: NDArray, b: NDArray, *rest: NDArray) -> None:
        product = np.multiply(a, b, dtype=wide)
        np.add(product, rest[0] if add else 0, rest[-1])

    return run


def _high(a: NDArray, b: NDArray, out: NDArray) -> None:
    wide = np.int64 if out.dtype.kind == "i" else np.uint64
    out[...] = np.multiply(a, b, dtype=wide) >> wide(32)


def _quotient(a: NDArray, b: NDArray, out: NDArray) -> None:
    """Rounds toward zero, as C does; a division by zero gives all ones."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // divisor
    inexact_negative = (quotient * divisor != a) & ((a < 0) != (divisor < 0))
    result = quotient + inexact_negative.astype(a.dtype)
    out[...] = np.where(b == 0, ~b.dtype.type(0), result)


def _remainder(a: NDArray, b: NDArray, out: NDArray) -> None:
    quotient = np.empty_like(a)
    _quotient(a, b, quotient)
    np.subtract(a, quotient * b, out)


def _shift(shift: Function, past_end: str) -> Function:
    """A shift by the width or more leaves zero, or copies of the sign."""

    def run(a: NDArray, count: NDArray, out: NDArray) -> None:
        bits = a.dtype.itemsize * 8
        clamped = np.minimum(count, bits - 1).astype(a.dtype)
        result = shift(a, clamped)
        if past_end == "zero":
            result[count >= bits] = 0
        out[...] = result

    return run


def _relu(function: Function) -> Function:
    def run(a: NDArray, b: NDArray, out: NDArray) -> None:
        np.maximum(function(a, b), 0, out)

    return run


def _of_three(function: Function) -> Function:
    def run(a: NDArray, b: NDArray, c: NDArray, out: NDArray) -> None:
        function(function(a, b), c, out)

    return run


class _Table(dict[tuple[str, int], tuple[str, tuple[str, ...], Function]]):
    """{(opcode, number of operands): (kind of the result, kinds of the operands, function)}."""

    def add(self, opcode: str, result: str, operands: tuple[str, ...], function: Function) -> None:
        """An entry."""
        self[opcode, len(operands)] = (result, operands, function)

    def enter(self, opcode: str, kind: str, count: int, function: Function) -> None:
        """An entry whose result and operands are of one kind."""
        self.add(opcode, kind, (kind,) * count, function)


def _table() -> _Table:
    table = _Table()
    enter = table.enter

    for kind in ("s16", "u16", "s32", "u32", "s64", "u64"):
        for name, function in (("add", np.add), ("sub", np.subtract), ("mul.lo", np.multiply),
                               ("min", np.minimum), ("max", np.maximum), ("div", _quotient),
                               ("rem", _remainder)):  # fmt: skip
            enter(f"{name}.{kind}", kind, 2, function)
        enter(f"mad.lo.{kind}", kind, 3, _multiply_add)
        past_end = "sign" if kind[0] == "s" else "zero"
        table.add(f"shr.{kind}", kind, (kind, "u32"), _shift(np.right_shift, past_end))
        if kind[0] == "s":
            enter(f"neg.{kind}", kind, 1, np.negative)
            enter(f"abs.{kind}", kind, 1, np.absolute)
    for kind in ("s32", "u32"):
        wide = f"{kind[0]}64"
        table.add(f"mul.wide.{kind}", wide, (kind, kind), _wide(kind, False))
        table.add(f"mad.wide.{kind}", wide, (kind, kind, wide), _wide(kind, True))
        enter(f"mul.hi.{kind}", kind, 2, _high)
    for name, function in (("max", np.maximum), ("min", np.minimum)):
        enter(f"{name}.relu.s32", "s32", 2, _relu(function))
    for kind in ("b16", "b32", "b64", "pred"):
        own = "p" if kind == "pred" else "u" + kind[1:]
        for name, function in (("and", np.bitwise_and), ("or", np.bitwise_or),
                               ("xor", np.bitwise_xor)):  # fmt: skip
            enter(f"{name}.{kind}", own, 2, function)
        enter(f"not.{kind}", own, 1, np.invert)
        if kind != "pred":
            table.add(f"shl.{kind}", own, (own, "u32"), _shift(np.left_shift, "zero"))
            table.add(f"shr.{kind}", own, (own, "u32"), _shift(np.right_shift, "zero"))
    _enter_floats(table)
    return table


def _enter_floats(table: _Table) -> None:
    enter = table.enter
    two = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
    for rounding in ("", ".rn"):
        for flush, wrap in (("", lambda f: f), (".ftz", flushing)):
            for name, function in two.items():
                enter(f"{name}{rounding}{flush}.f32", "f32", 2, wrap(function))
        for name, function in two.items():
            enter(f"{name}{rounding}.f32x2", "f32x2", 2, function)
            enter(f"{name}{rounding}.f64", "f64", 2, function)
    for flush, wrap in (("", lambda f: f), (".ftz", flushing)):
        enter(f"fma.rn{flush}.f32", "f32", 3, wrap(_fused_multiply_add))
        for name, plain, with_nan in (("min", np.fmin, np.minimum), ("max", np.fmax, np.maximum)):
            for suffix, function in (("", plain), (".NaN", with_nan)):
                enter(f"{name}{flush}{suffix}.f32", "f32", 2, wrap(function))
                enter(f"{name}{flush}{suffix}.f32", "f32", 3, wrap(_of_three(function)))
        for name, function in (("neg", np.negative), ("abs", np.absolute)):
            enter(f"{name}{flush}.f32", "f32", 1, wrap(function))
        for name, function in (("ex2", np.exp2), ("lg2", np.log2), ("rcp", np.reciprocal),
                               ("sqrt", np.sqrt), ("rsqrt", _reciprocal_root)):  # fmt: skip
            enter(f"{name}.approx{flush}.f32", "f32", 1, wrap(function))
        for exact in ("rcp.rn", "sqrt.rn"):
            function = np.reciprocal if exact.startswith("rcp") else np.sqrt
            enter(f"{exact}{flush}.f32", "f32", 1, wrap(function))
        for precision in ("full", "approx", "rn"):
            enter(f"div.{precision}{flush}.f32", "f32", 2, wrap(np.divide))
    enter("fma.rn.f32x2", "f32x2", 3, _fused_multiply_add)
    for half, convert in (("f16", lambda x: x.view(np.float16).astype(np.float32)),
                          ("bf16", from_bfloat16)):  # fmt: skip
        fused = _mixed(_fused_multiply_add, convert, 2)
        table.add(f"fma.rn.f32.{half}", "f32", ("u16", "u16", "f32"), fused)
        for name in ("add", "sub"):
            for rounding in ("", ".rn"):
                mixed = _mixed(two[name], convert, 1)
                table.add(f"{name}{rounding}.f32.{half}", "f32", ("u16", "f32"), mixed)


def _reciprocal_root(a: NDArray, out: NDArray) -> None:
    np.divide(np.float32(1), np.sqrt(a), out)


_TABLE = _table()


def build_elementwise(instruction: Instruction, registers: RegisterMap) -> Any:
    """An instruction of the table."""
    opcode = ".".join(instruction.opcode)
    result, *operands = instruction.operands
    if (opcode, len(operands)) not in _TABLE:
        raise UnsupportedError(opcode)
    kind, kinds, function = _TABLE[opcode, len(operands)]
    out = registers.row(result, kind)
    sources = [registers.row(x, k) for x, k in zip(operands, kinds, strict=True)]
    if len(sources) == 1:
        (a,) = sources
        return lambda group: function(group.rows[kinds[0]][a], group.rows[kind][out])
    if len(sources) == 2:
        a, b = sources
        first, second = kinds

        def run_two(group: Any) -> None:
            rows = group.rows
            function(rows[first][a], rows[second][b], rows[kind][out])

        return run_two
    a, b, c = sources
    first, second, third = kinds

    def run_three(group: Any) -> None:
        rows = group.rows
        function(rows[first][a], rows[second][b], rows[third][c], rows[kind][out])

    return run_three
