"""wgmma: asynchronous matrix products of a warpgroup, four warps, on sm_90.

D (64, N) += A (64, K) B (K, N), with B in shared memory and A there or in registers. A descriptor
gives the place of an operand in shared memory (PTX ISA, "Matrix Descriptor Format"):
    bits 0-13   start address / 16
    bits 16-29  leading dimension byte offset / 16
    bits 32-45  stride dimension byte offset / 16
    bits 62-63  swizzle: none, 128, 64, 32 bytes
Memory consists of rows as wide as the swizzle (16 bytes for none), eight to a group. Inside the
group the swizzle permutes 16-byte chunks by address bits. K runs along a row; where the operand is
transposed, M or N does. Groups follow one another at the stride offset, rows of the next column at
the leading offset. A warp w of the warpgroup owns the rows 16 w to 16 w + 15 of A and D, laid out
as in mma.sync.

Operands are read and results written when the product is waited for: the latest moment that the
chip allows. So a register or a place in shared memory that changes too early spoils the result.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .blocks import WARPGROUP, BlockGroup, Operation
from .errors import KernelFaultError, UnsupportedError
from .matrix import left_operand
from .program import Instruction, Vector, constant
from .registers import RegisterMap
from .shared_memory import ALIGNMENT

_CHUNK_ELEMENTS = 8
_SWIZZLE_BYTES = {0: 16, 1: 128, 2: 64, 3: 32}
_SWIZZLE_BITS = {0: 0, 1: 7, 2: 3, 3: 1}
_M = 64


@dataclass(frozen=True)
class _Form:
    """What is fixed at compile time."""

    columns: int
    depth: int
    kind: str
    results: tuple[int, ...]
    left_rows: tuple[int, ...] | None
    """Registers of A; None if it lies in shared memory."""
    left_transposed: bool
    right_transposed: bool


@dataclass
class Product:
    """One wgmma in flight; descriptors are (blocks, warpgroups)."""

    form: _Form
    left: NDArray | None
    right: NDArray
    accumulates: NDArray
    """Whether D is added to, per lane."""
    line: str

    def take(self, blocks: NDArray, threads: int) -> "Product":
        """The product for a selection of the blocks."""
        left = None if self.left is None else self.left[blocks]
        accumulates = self.accumulates.reshape(-1, threads)[blocks].reshape(-1)
        return replace(self, left=left, right=self.right[blocks], accumulates=accumulates)


def build_wgmma(instruction: Instruction, registers: RegisterMap) -> Operation:
    """wgmma.mma_async, its fence and its groups."""
    form = instruction.opcode[1:]
    if instruction.guard is not None:
        raise UnsupportedError(instruction.line)
    if form == ("fence", "sync", "aligned"):
        return lambda group: None
    if form == ("commit_group", "sync", "aligned"):
        return lambda group: group.products.commit()
    if form == ("wait_group", "sync", "aligned"):
        count = constant(instruction.operands[0])
        return lambda group: _finish(group, group.products.completed(count))
    return _build_product(instruction, registers)


def _build_product(instruction: Instruction, registers: RegisterMap) -> Operation:
    """d, a, b, scale-d, scale-a, scale-b[, transposed a][, transposed b]."""
    opcode = re.fullmatch(
        r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.(b?f16)\.\2",
        ".".join(instruction.opcode),
    )
    result, left, right, accumulate, *flags = instruction.operands
    values = [constant(flag) for flag in flags]
    in_registers = isinstance(left, Vector)
    known = values[:2] == [1, 1] and len(values) == (3 if in_registers else 4)
    if opcode is None or not known or not isinstance(result, Vector):
        raise UnsupportedError(instruction.line)
    left_rows = tuple(registers.row(x, "u32") for x in left.items) if in_registers else None
    form = _Form(
        columns=int(opcode[1]),
        depth=16,
        kind=opcode[2],
        results=tuple(registers.row(x, "f32") for x in result.items),
        left_rows=left_rows,
        left_transposed=bool(values[2]) and not in_registers,
        right_transposed=bool(values[-1]),
    )
    left_row = None if in_registers else registers.row(left, "u64")
    right_row, accumulate_row = registers.row(right, "u64"), registers.row(accumulate, "p")

    def run(group: BlockGroup) -> None:
        descriptors = group.rows["u64"]
        product = Product(
            form,
            None if left_row is None else _leading(descriptors[left_row], group),
            _leading(descriptors[right_row], group),
            group.rows["p"][accumulate_row].copy(),
            instruction.line,
        )
        for place in _places(product, group):
            group.shared.begin_product(place.units, instruction.line)
        group.products.uncommitted.append(product)

    return run


def _leading(descriptors: NDArray, group: BlockGroup) -> NDArray:
    """(blocks, warpgroups) of the first lane's values."""
    return descriptors[::WARPGROUP].reshape(len(group.blocks), -1).copy()


@dataclass(frozen=True)
class _Place:
    """Where an operand lies in the shared memory of a group."""

    chunks: NDArray
    """16-byte chunks (blocks, warpgroups, outer, depth / 8), or where transposed (blocks,
    warpgroups, depth, outer / 8)."""
    units: NDArray
    """The units of those chunks, each once."""


def _places(product: Product, group: BlockGroup) -> list[_Place]:
    """Of B, and of A if it lies in shared memory."""
    form, shared = product.form, group.shared
    operands = [(product.right, form.columns, form.right_transposed)]
    if product.left is not None:
        operands.append((product.left, _M, form.left_transposed))
    found = []
    for descriptors, outer, transposed in operands:
        layout = (outer, form.depth, transposed)
        memory = (shared.size, shared.stride, shared.unit)
        found.append(_place(descriptors.tobytes(), descriptors.shape, layout, memory))
    return found


@lru_cache(4096)
def _place(
    descriptors: bytes,
    shape: tuple[int, int],
    layout: tuple[int, int, bool],
    memory: tuple[int, int, int],
) -> _Place:
    """``shape`` is (blocks, warpgroups), ``layout`` (outer, depth, transposed)."""
    size, stride, unit = memory
    numbers = np.frombuffer(descriptors, np.uint64).tolist()
    addresses = np.stack([_chunk_addresses(number, *layout) for number in numbers])
    if addresses.max() + ALIGNMENT > size:
        raise KernelFaultError(f"a wgmma descriptor reaches beyond the {size} bytes there are")
    blocks = np.arange(shape[0])[:, None, None, None] * (stride // ALIGNMENT)
    chunks = (addresses // ALIGNMENT).reshape(*shape, *addresses.shape[1:]) + blocks
    per_chunk = ALIGNMENT // unit
    return _Place(chunks, np.unique(chunks)[:, None] * per_chunk + np.arange(per_chunk))


@lru_cache(4096)
def _chunk_addresses(descriptor: int, outer: int, depth: int, transposed: bool) -> NDArray:
    """Byte addresses of the chunks of an (outer, depth) operand of 16-bit elements."""
    start, leading, stride = ((descriptor >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
    mode = descriptor >> 62
    width = _SWIZZLE_BYTES[mode]
    along, across = (outer, depth) if transposed else (depth, outer)
    line = np.arange(across)[:, None]
    byte = np.arange(0, along, _CHUNK_ELEMENTS)[None, :] * 2
    address = start + line % 8 * width + line // 8 * stride + byte % width + byte // width * leading
    return address ^ ((address >> 7 & _SWIZZLE_BITS[mode]) << 4)


def _operand(chunks: NDArray, transposed: bool, kind: str, group: BlockGroup) -> NDArray:
    """float32 (blocks, warpgroups, outer, depth)."""
    values = group.shared.chunks(chunks)
    values = values.reshape(*values.shape[:-2], -1)
    if kind == "f16":
        numbers = values.view(np.float16).astype(np.float32)
    else:
        numbers = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return numbers.swapaxes(-1, -2) if transposed else numbers


def _finish(group: BlockGroup, products: list[Product]) -> None:
    for product in products:
        form = product.form
        places = _places(product, group)
        right = _operand(places[0].chunks, form.right_transposed, form.kind, group)
        if form.left_rows is None:
            left = _operand(places[1].chunks, form.left_transposed, form.kind, group)
        else:
            words = group.registers.several("u32", form.left_rows)
            left = left_operand(words, form.kind).reshape(*product.right.shape, _M, form.depth)
        _accumulate(group, product, np.matmul(left, right.swapaxes(-1, -2)))
        for place in places:
            group.shared.end_product(place.units)


def _accumulate(group: BlockGroup, product: Product, result: NDArray) -> None:
    """Register i of a lane: row 16 w + g + 8 (i // 2 % 2), column 8 (i // 4) + 2 t + i % 2."""
    parts = result.reshape(-1, 4, 2, 8, product.form.columns // 8, 4, 2)
    by_register = parts.transpose(4, 2, 6, 0, 1, 3, 5).reshape(len(product.form.results), -1)
    floats = group.rows["f32"]
    adds = product.accumulates.all()
    for row, value in zip(product.form.results, by_register, strict=True):
        if adds:
            floats[row] += value
        else:
            floats[row][:] = np.where(product.accumulates, floats[row], np.float32(0)) + value
