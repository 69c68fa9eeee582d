"""Loads and stores of parameters, global memory and shared memory."""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .blocks import BlockGroup, Operation, active_lanes
from .errors import UnsupportedError
from .program import Address, Immediate, Instruction, Operand, Symbol, Vector
from .registers import RegisterMap, numpy_type

# What the caches keep changes no result; nor does volatile, as memory is read when it is asked for.
_HINTS = (
    "volatile", "L1::evict_first", "L1::evict_last", "L1::no_allocate", "L1::evict_normal",
)  # fmt: skip
_SHARED = ("shared", "shared::cta")


class AccessShape:
    """Space, element type and number of elements of a load or a store."""

    def __init__(self, instruction: Instruction) -> None:
        *modifiers, self.kind = instruction.opcode[1:]
        self.space = next((m for m in modifiers if m not in _HINTS), "")
        modifiers = [m for m in modifiers if m != self.space]
        vector = [m for m in modifiers if re.fullmatch(r"v[248]", m)]
        unknown = [m for m in modifiers if m not in vector and m not in _HINTS]
        if unknown or len(vector) > 1 or not re.fullmatch(r"[busf](8|16|32|64)", self.kind):
            raise UnsupportedError(instruction.line)
        self.count = int(vector[0][1:]) if vector else 1
        self.element_bytes = int(self.kind[1:]) // 8
        self.num_bytes = self.count * self.element_bytes


def address_function(
    operand: Operand, registers: RegisterMap, space: str
) -> Callable[[BlockGroup, slice | NDArray], NDArray]:
    """Addresses of some lanes: uint64 in global memory, int64 in shared memory."""
    if not isinstance(operand, Address):
        raise UnsupportedError(f"address {operand}")
    offset = operand.offset
    if space == "global":
        row = registers.row(operand.base, "u64")
        wrapped = np.uint64(offset & (2**64 - 1))
        return lambda group, lanes: group.rows["u64"][row][lanes] + wrapped
    base = Immediate(0) if operand.base == Symbol("global_smem") else operand.base
    row = registers.row(base, "u32")
    return lambda group, lanes: group.rows["u32"][row][lanes].astype(np.int64) + offset


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def build_load(instruction: Instruction, registers: RegisterMap) -> Operation:
    """ld.param, ld.global, ld.shared; registers may be wider than elements."""
    if instruction.opcode[1] == "param":
        return _build_parameter(instruction, registers)
    shape = AccessShape(instruction)
    result, source = instruction.operands
    items = _items(result)
    if len(items) != shape.count:
        raise UnsupportedError(instruction.line)
    stores = [_register_writer(item, shape.kind, registers) for item in items]
    lanes_of = active_lanes(instruction, registers)
    load = _loader(instruction, registers, source, shape)

    def run(group: BlockGroup) -> None:
        lanes = lanes_of(group)
        values = load(group, lanes)
        for column, store in enumerate(stores):
            store(group, lanes, values[:, column])

    return run


def _loader(
    instruction: Instruction, registers: RegisterMap, source: Operand, shape: AccessShape
) -> Callable[[BlockGroup, slice | NDArray], NDArray]:
    address = address_function(source, registers, shape.space)
    line, element_bytes, count = instruction.line, shape.element_bytes, shape.count
    if shape.space == "global":
        return lambda group, lanes: group.memory.load(
            address(group, lanes), element_bytes, count, group.block_of_lane[lanes], line
        )
    if shape.space not in _SHARED:
        raise UnsupportedError(line)
    return lambda group, lanes: group.shared.load(
        address(group, lanes), element_bytes, count, group.bases[lanes], group.warps[lanes], line
    )


def _register_writer(
    operand: Operand, kind: str, registers: RegisterMap
) -> Callable[[BlockGroup, slice | NDArray, NDArray], None]:
    """Writes elements to some lanes of a register, extended to its width."""
    if operand == Symbol("_"):
        return lambda group, lanes, values: None
    signed = kind[0] == "s"
    element = numpy_type(("s" if signed else "u") + kind[1:])
    register = f"{'s' if signed else 'u'}{registers.width(operand)}"
    row = registers.row(operand, register)

    def write(group: BlockGroup, lanes: slice | NDArray, values: NDArray) -> None:
        group.rows[register][row][lanes] = values.view(element)

    return write


def build_store(instruction: Instruction, registers: RegisterMap) -> Operation:
    """st.global, st.shared; registers may be wider than elements."""
    shape = AccessShape(instruction)
    target, source = instruction.operands
    items = _items(source)
    if len(items) != shape.count:
        raise UnsupportedError(instruction.line)
    bits = max(8 * shape.element_bytes, 16)
    rows = [registers.row(item, f"u{bits}") for item in items]
    lanes_of = active_lanes(instruction, registers)
    address = address_function(target, registers, shape.space)
    element, line = np.dtype(f"u{shape.element_bytes}"), instruction.line
    if shape.space not in ("global", *_SHARED):
        raise UnsupportedError(line)

    def run(group: BlockGroup) -> None:
        lanes = lanes_of(group)
        at = address(group, lanes)
        registers_here = group.rows[f"u{bits}"]
        values = np.empty((len(at), len(rows)), element)
        for column, row in enumerate(rows):
            values[:, column] = registers_here[row][lanes]
        if shape.space == "global":
            group.memory.store(at, values, group.block_of_lane[lanes], line)
        else:
            group.shared.store(at, values, group.bases[lanes], group.warps[lanes], line)

    return run


def _build_parameter(instruction: Instruction, registers: RegisterMap) -> Operation:
    """ld.param.type d, [name]: a signed type is extended to the register."""
    if len(instruction.opcode) != 3 or instruction.guard is not None:
        raise UnsupportedError(instruction.line)
    kind, (result, source) = instruction.opcode[2], instruction.operands
    if not isinstance(source, Address) or not isinstance(source.base, Symbol) or source.offset:
        raise UnsupportedError(instruction.line)
    name, bits, width = source.base.name, int(kind[1:]), registers.width(result)
    row = registers.row(result, f"u{width}")

    def run(group: BlockGroup) -> None:
        value = group.parameters[name] & ((1 << bits) - 1)
        if kind[0] == "s" and value >> (bits - 1):
            value -= 1 << bits
        group.rows[f"u{width}"][row][:] = value & ((1 << width) - 1)

    return run
