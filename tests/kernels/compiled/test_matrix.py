"""Fragments of the matrix instructions, placed lane by lane as the PTX ISA tables them."""

import numpy as np
import pytest
import torch

from .emulator.numbers import to_bfloat16
from .handwritten import results, run

RANDOM = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    """Integers that every format holds exactly, so that all products are exact."""
    return RANDOM.integers(-8, 9, shape).astype(np.float32)


def bits(x: float, kind: str) -> int:
    """A number in 16 bits, or in 32 as TF32."""
    value = np.array([x], np.float32)
    if kind == "f16":
        return int(value.astype(np.float16).view(np.uint16)[0])
    return int(to_bfloat16(value)[0]) if kind == "bf16" else int(value.view(np.uint32)[0])


def packed(first: float, second: float, kind: str) -> int:
    """Two 16-bit numbers in a register, the first in the low half."""
    return bits(first, kind) | bits(second, kind) << 16


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_mma_of_16_bit_elements(kind):
    a, b, c = numbers(16, 16), numbers(16, 8), numbers(16, 8)
    registers = [np.zeros(32, np.uint32) for _ in range(10)]
    for lane in range(32):
        group, place = lane >> 2, lane & 3
        for number, (row, column) in enumerate(
            [(group, 2 * place), (group + 8, 2 * place), (group, 2 * place + 8),
             (group + 8, 2 * place + 8)]
        ):  # fmt: skip
            registers[number][lane] = packed(a[row, column], a[row, column + 1], kind)
        for number, row in enumerate((2 * place, 2 * place + 8)):
            registers[4 + number][lane] = packed(b[row, group], b[row + 1, group], kind)
        for number, (row, column) in enumerate(_sum_places(lane)):
            registers[6 + number].view(np.float32)[lane] = c[row, column]
    body = f"""
        mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {{%r60, %r61, %r62, %r63}},
            {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, {{%r16, %r17, %r18, %r19}};
    """
    _assert_sums(results(body, registers, 4), a @ b + c)


def test_mma_of_tf32_elements():
    a, b, c = numbers(16, 8), numbers(8, 8), numbers(16, 8)
    registers = [np.zeros(32, np.uint32) for _ in range(10)]
    for lane in range(32):
        group, place = lane >> 2, lane & 3
        for number in range(4):
            row, column = group + 8 * (number & 1), place + 4 * (number >> 1)
            registers[number][lane] = bits(a[row, column], "tf32") | 0xFFF  # read as zeros
        for number in range(2):
            registers[4 + number][lane] = bits(b[place + 4 * number, group], "tf32")
        for number, (row, column) in enumerate(_sum_places(lane)):
            registers[6 + number].view(np.float32)[lane] = c[row, column]
    body = """
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r60, %r61, %r62, %r63},
            {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r16, %r17, %r18, %r19};
    """
    _assert_sums(results(body, registers, 4), a @ b + c)


def _sum_places(lane: int) -> list[tuple[int, int]]:
    """(row, column) of the four elements of C and D that a lane holds."""
    group, place = lane >> 2, lane & 3
    return [(group + 8 * (i >> 1), 2 * place + (i & 1)) for i in range(4)]


def _assert_sums(got: list[np.ndarray], want: np.ndarray) -> None:
    for lane in range(32):
        for number, (row, column) in enumerate(_sum_places(lane)):
            assert got[number].view(np.float32)[lane] == want[row, column]


@pytest.mark.parametrize("trans", [False, True])
def test_ldmatrix(trans):
    """Four 8 x 8 matrices of 16-bit numbers; lane 8 j + i gives the address of row i of matrix
    j."""
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    rows = matrices.reshape(32, 4, 2).copy().view(np.uint32).reshape(32, 4)
    body = f"""
        shl.b32 %r1, %r0, 4;
        st.shared.v4.b32 [%r1], {{%r10, %r11, %r12, %r13}};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x4{".trans" if trans else ""}.shared.b16
            {{%r60, %r61, %r62, %r63}}, [%r1];
    """
    got = results(body, list(rows.T), 4, shared_bytes=512)
    for lane in range(32):
        for j in range(4):
            matrix = matrices[j].T if trans else matrices[j]
            first, second = matrix[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2]
            assert got[j][lane] == int(first) | int(second) << 16


def test_stmatrix():
    values = np.arange(64, dtype=np.uint32).reshape(2, 32) * 0x10001
    body = """
        shl.b32 %r1, %r0, 4;
        stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r1], {%r10, %r11};
        bar.sync 0;
        shl.b32 %r1, %r0, 3;
        ld.shared.v2.b32 {%r60, %r61}, [%r1];
    """
    got = results(body, list(values), 2, shared_bytes=512)
    memory = np.stack(got, 1).reshape(2, 8, 4)  # matrix, row, pair of columns
    for lane in range(32):
        for j in range(2):
            assert memory[j, lane // 4, lane % 4] == values[j, lane]


def descriptor(start: int, leading: int, stride: int, swizzle: int) -> int:
    """A wgmma matrix descriptor; sizes in bytes."""
    return start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | swizzle << 62


def stored(matrix: np.ndarray, width: int, leading: int, transposed: bool) -> bytearray:
    """(outer, depth) numbers in shared memory in the layout of wgmma, byte by byte.

    Rows of ``width`` bytes are swizzled over groups of eight; ``leading`` bytes lie between what is
    ``width`` bytes apart in a row.
    """
    across, along = matrix.T.shape if transposed else matrix.shape
    memory = bytearray(leading * max(1, along * 2 // width) + across * width)
    for line in range(across):
        for column in range(along):
            outer, depth = (column, line) if transposed else (line, column)
            byte = column * 2
            address = line * width + byte % width + byte // width * leading
            if width > 16:
                unit, rest = divmod(address, 16)
                units = width // 16
                # Rows of 128 bytes: 8 units, row r moves unit u to u ^ (r % 8).
                address = (unit ^ (address // 128 % 8) % units) * 16 + rest
            memory[address : address + 2] = int(matrix[outer, depth]).to_bytes(2, "little")
    return memory


@pytest.mark.parametrize("swizzle", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_wgmma(swizzle, transposed, kind):
    """A (64, 16) and B (16, 32) in shared memory with every swizzle; D is added to."""
    width = {1: 128, 2: 64, 3: 32}[swizzle]
    a, b, c = numbers(64, 16), numbers(16, 32), numbers(64, 32)
    to_bits = np.vectorize(lambda x: bits(x, kind))
    # Without transposition the memory is wide enough for more columns than the 16 that are read.
    depth = 16 if transposed else width // 2
    wide_a, wide_b = np.zeros((64, depth)), np.zeros((32, depth))
    wide_a[:, :16], wide_b[:, :16] = a, b.T
    leading = 16 * width if transposed else width
    memory_a = stored(to_bits(wide_a), width, leading, transposed)
    memory_b = stored(to_bits(wide_b), width, leading, transposed)
    start_b = -(-len(memory_a) // 1024) * 1024
    memory = memory_a.ljust(start_b, b"\0") + memory_b
    memory = memory.ljust(-(-len(memory) // 2048) * 2048, b"\0")
    lay_a = descriptor(0, leading, 8 * width, swizzle)
    lay_b = descriptor(start_b, leading, 8 * width, swizzle)
    sums = ", ".join(f"%r{i}" for i in range(40, 56))
    flag = int(transposed)
    body = f"""
        mul.wide.u32 %rd9, %r0, 16;
        add.s64 %rd10, %rd0, %rd9;
        shl.b32 %r1, %r0, 4;
        {_copied(len(memory))}
        bar.sync 0;
        fence.proxy.async.shared::cta;
        mul.wide.u32 %rd9, %r0, 64;
        add.s64 %rd11, %rd1, %rd9;
        {_each_sum("ld.global.b32 %r{register}, [%rd11+{offset}];")}
        mov.b64 %rd12, {lay_a};
        mov.b64 %rd13, {lay_b};
        mov.pred %p1, -1;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n32k16.f32.{kind}.{kind} {{{sums}}}, %rd12, %rd13, %p1,
            1, 1, {flag}, {flag};
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;
        {_each_sum("st.global.b32 [%rd11+{offset}], %r{register};")}
    """
    given = torch.frombuffer(memory, dtype=torch.uint8)
    fragments = torch.zeros(128, 16)
    for thread in range(128):
        for number, (row, column) in enumerate(_wgmma_places(thread)):
            fragments[thread, number] = float(c[row, column])
    run(body, given, fragments, threads=128, shared_bytes=len(memory))
    want = a @ b + c
    for thread in range(128):
        for number, (row, column) in enumerate(_wgmma_places(thread)):
            assert fragments[thread, number] == want[row, column], (thread, number)


def _wgmma_places(thread: int) -> list[tuple[int, int]]:
    warp, lane = divmod(thread, 32)
    return [
        (16 * warp + lane // 4 + 8 * (i >> 1 & 1), 8 * (i >> 2) + 2 * (lane % 4) + (i & 1))
        for i in range(16)
    ]


def _copied(num_bytes: int) -> str:
    """The first tensor to shared memory, 16 bytes per thread and step."""
    return "".join(
        f"""
        ld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd10+{step}];
        st.shared.v4.b32 [%r1+{step}], {{%r2, %r3, %r4, %r5}};
        """
        for step in range(0, num_bytes, 2048)
    )


def _each_sum(line: str) -> str:
    return "\n".join(line.format(register=40 + i, offset=4 * i) for i in range(16))


def test_wgmma_with_a_in_registers_starts_from_zero():
    """Scale-d is false: what D held does not matter. B without a swizzle."""
    a, b = numbers(64, 16), numbers(16, 8)
    columns = [np.zeros(128, np.uint32) for _ in range(4)]
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for number in range(4):
            row = 16 * warp + lane // 4 + 8 * (number & 1)
            column = 2 * (lane % 4) + 8 * (number >> 1)
            columns[number][thread] = packed(a[row, column], a[row, column + 1], "bf16")
    # (8, 16) numbers as two 8 x 8 matrices of 128 bytes: the leading offset lies between them.
    memory = np.array(
        [bits(x, "bf16") for x in b.T.reshape(8, 2, 8).swapaxes(0, 1).flat], np.uint16
    )
    columns.append(np.resize(memory.view(np.uint32), 128))
    body = f"""
        shl.b32 %r1, %r0, 2;
        setp.lt.u32 %p2, %r0, 64;
        @%p2 st.shared.b32 [%r1], %r14;
        bar.sync 0;
        fence.proxy.async.shared::cta;
        mov.b64 %rd13, {descriptor(0, 128, 256, 0)};
        mov.pred %p1, 0;
        mov.b32 %r60, 0f7FC00000;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%r60, %r61, %r62, %r63}},
            {{%r10, %r11, %r12, %r13}}, %rd13, %p1, 1, 1, 0;
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;
    """
    got = results(body, columns, 4, threads=128, shared_bytes=256)
    want = a @ b
    for thread in range(128):
        for number, (row, column) in enumerate(_wgmma_places(thread)[:4]):
            assert got[number].view(np.float32)[thread] == want[row, column]
