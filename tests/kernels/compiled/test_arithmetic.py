"""Arithmetic, conversions and exchange between lanes against Python's own numbers."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch

from .handwritten import results

EDGES = [0, 1, 2, 5, 31, 32, 33, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFB]
RANDOM = np.random.default_rng(0)
A = np.array(EDGES + RANDOM.integers(0, 2**32, 20).tolist(), np.uint32)
B = np.array(RANDOM.integers(0, 2**32, 20).tolist() + EDGES, np.uint32)
C = RANDOM.permutation(A)


def signed(x: int) -> int:
    """32 bits as a signed number."""
    return x - 2**32 if x >> 31 else x


def truncated(a: int, b: int) -> int:
    """The quotient rounded toward zero; all ones for a division by zero, as the chip gives."""
    return -1 if b == 0 else int(Fraction(a, b))


INTEGERS = {
    "add.s32 %r60, %r10, %r11;": lambda a, b, c: a + b,
    "sub.s32 %r60, %r10, %r11;": lambda a, b, c: a - b,
    "mul.lo.s32 %r60, %r10, %r11;": lambda a, b, c: a * b,
    "mul.hi.s32 %r60, %r10, %r11;": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mul.hi.u32 %r60, %r10, %r11;": lambda a, b, c: a * b >> 32,
    "mad.lo.s32 %r60, %r10, %r11, %r12;": lambda a, b, c: a * b + c,
    "min.s32 %r60, %r10, %r11;": lambda a, b, c: min(signed(a), signed(b)),
    "max.u32 %r60, %r10, %r11;": lambda a, b, c: max(a, b),
    "max.relu.s32 %r60, %r10, %r11;": lambda a, b, c: max(signed(a), signed(b), 0),
    "div.s32 %r60, %r10, %r11;": lambda a, b, c: truncated(signed(a), signed(b)),
    "div.u32 %r60, %r10, %r11;": lambda a, b, c: truncated(a, b),
    "shl.b32 %r60, %r10, %r11;": lambda a, b, c: a << b if b < 32 else 0,
    "shr.u32 %r60, %r10, %r11;": lambda a, b, c: a >> min(b, 32),
    "shr.s32 %r60, %r10, %r11;": lambda a, b, c: signed(a) >> min(b, 31),
    "not.b32 %r60, %r10;": lambda a, b, c: ~a,
    "xor.b32 %r60, %r10, -6;": lambda a, b, c: a ^ 0xFFFFFFFA,
    "neg.s32 %r60, %r10;": lambda a, b, c: -a,
    "popc.b32 %r60, %r10;": lambda a, b, c: a.bit_count(),
    "bfe.u32 %r60, %r10, 4, 14;": lambda a, b, c: a >> 4 & 0x3FFF,
    "bfe.s32 %r60, %r10, 6, 3;": lambda a, b, c: (a >> 6 & 7) - 8 * (a >> 8 & 1),
    "bfi.b32 %r60, %r10, %r11, 8, 4;": lambda a, b, c: b & ~0xF00 | (a & 15) << 8,
    "lop3.b32 %r60, %r10, %r11, %r12, 0xCA;": lambda a, b, c: a & b | ~a & c,
    "shf.l.wrap.b32 %r60, %r10, %r11, 5;": lambda a, b, c: (b << 32 | a) << 5 >> 32,
    "shf.r.wrap.b32 %r60, %r10, %r11, 5;": lambda a, b, c: (b << 32 | a) >> 5,
    "prmt.b32 %r60, %r10, %r11, 0x5410;": lambda a, b, c: a & 0xFFFF | (b & 0xFFFF) << 16,
    "prmt.b32 %r60, %r10, %r11, 0x3B21;": lambda a, b, c: (
        a >> 8 & 255 | (a >> 16 & 255) << 8 | (0xFF0000 if a >> 31 else 0) | (a >> 24) << 24
    ),
    "mul.wide.s32 %rd1, %r10, %r11; mov.b64 {_, %r60}, %rd1;": lambda a, b, c: (
        signed(a) * signed(b) >> 32
    ),
    "cvt.u64.u32 %rd2, %r12; mad.wide.u32 %rd1, %r10, %r11, %rd2; mov.b64 {%r60, _}, %rd1;": (
        lambda a, b, c: a * b + c
    ),
    "cvt.s64.s32 %rd1, %r10; shr.s64 %rd1, %rd1, 3; cvt.u32.u64 %r60, %rd1;": lambda a, b, c: (
        signed(a) >> 3
    ),
    "mov.b32 {%rs1, %rs2}, %r10; mov.b32 %r60, {%rs2, %rs1};": lambda a, b, c: (
        a >> 16 | (a & 0xFFFF) << 16
    ),
    "setp.lt.s32 %p1, %r10, %r11; selp.b32 %r60, 7, %r12, %p1;": lambda a, b, c: (
        7 if signed(a) < signed(b) else c
    ),
    "setp.hi.u32 %p1, %r10, %r11; setp.ge.and.u32 %p2|%p3, %r12, 99, %p1; selp.b32 %r1, 2, 0, %p3;"
    "selp.b32 %r60, 1, %r1, %p2;": lambda a, b, c: 0 if a <= b else 1 if c >= 99 else 2,
    "mov.b32 %r60, 3; setp.eq.b32 %p1, %r11, %r11; setp.lt.u32 %p2, %r10, 40;"
    "@%p2 add.s32 %r60, %r60, %r10; @!%p1 mov.b32 %r60, 0;": lambda a, b, c: 3 + a if a < 40 else 3,
    "cvt.rn.f32.s32 %r1, %r10; cvt.rzi.s32.f32 %r60, %r1;": lambda a, b, c: min(
        int(np.float32(signed(a))), 2**31 - 1
    ),
}


@pytest.mark.parametrize("body", INTEGERS)
def test_integers(body):
    (got,) = results(body, [A, B, C], 1)
    expected = [INTEGERS[body](*map(int, x)) % 2**32 for x in zip(A, B, C, strict=True)]
    assert got.tolist() == expected


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -3e-39, 1.0, 3.0, 65504.0]
X = np.array(SPECIAL + (RANDOM.standard_normal(22) * 8).tolist(), np.float32)
Y = RANDOM.permutation(X)
Z = RANDOM.permutation(X)


def single(x: float) -> float:
    """A double rounded to float32, infinity where it overflows."""
    with np.errstate(all="ignore"):
        return float(np.float32(x))


def flushed(x: float) -> float:
    """Subnormal float32 as zero."""
    return math.copysign(0.0, x) if abs(x) < 2**-126 else x


def fused(a: float, b: float, c: float) -> float:
    """One rounding to float32 of the exact a b + c."""
    if not all(map(math.isfinite, (a, b, c))):
        return single(a * b + c)
    return single(float(Fraction(a) * Fraction(b) + Fraction(c)))


FLOATS = {
    "add.f32 %r60, %r10, %r11;": lambda a, b, c: single(a + b),
    "sub.rn.f32 %r60, %r10, %r11;": lambda a, b, c: single(a - b),
    "mul.f32 %r60, %r10, 0f40400000;": lambda a, b, c: single(a * 3),
    "fma.rn.f32 %r60, %r10, %r11, %r12;": fused,
    "mul.ftz.f32 %r60, %r10, %r11;": lambda a, b, c: flushed(single(flushed(a) * flushed(b))),
    "max.f32 %r60, %r10, %r11;": lambda a, b, c: (
        b if math.isnan(a) else a if math.isnan(b) else max(a, b)
    ),
    "min.NaN.f32 %r60, %r10, %r11;": lambda a, b, c: (
        math.nan if math.isnan(a + 0 * b) and (math.isnan(a) or math.isnan(b)) else min(a, b)
    ),
    "max.f32 %r60, %r10, %r11, %r12;": lambda a, b, c: max(
        (x for x in (a, b, c) if not math.isnan(x)), default=math.nan
    ),
    "neg.f32 %r60, %r10;": lambda a, b, c: -a,
    "abs.f32 %r60, %r10;": lambda a, b, c: abs(a),
    "setp.gtu.f32 %p1, %r10, %r11; selp.f32 %r60, %r12, 0f00000000, %p1;": lambda a, b, c: (
        0.0 if a <= b else c
    ),
    "setp.le.f32 %p1, %r10, %r11; selp.f32 %r60, %r12, 0f00000000, %p1;": lambda a, b, c: (
        c if a <= b else 0.0
    ),
    "mov.b64 %rd11, {%r10, %r11}; mov.b64 %rd12, {%r12, %r12}; "
    "fma.rn.f32x2 %rd13, %rd11, %rd12, %rd11; mov.b64 {%r1, %r60}, %rd13;": lambda a, b, c: fused(
        b, c, b
    ),
}


@pytest.mark.parametrize("body", FLOATS)
def test_floats(body):
    (got,) = results(body, [X, Y, Z], 1)
    expected = [FLOATS[body](*map(float, x)) for x in zip(X, Y, Z, strict=True)]
    np.testing.assert_array_equal(got.view(np.float32), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ex2.approx.ftz", torch.exp2),
        ("lg2.approx", torch.log2),
        ("rcp.approx", torch.reciprocal),
        ("rsqrt.approx", torch.rsqrt),
        ("sqrt.rn", torch.sqrt),
    ],
)
def test_approximate_functions(name, function):
    x = np.abs(X[8:])
    x = np.concatenate([x, x[:8]])
    (got,) = results(f"{name}.f32 %r60, %r10;", [x], 1)
    want = function(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(got.view(np.float32), want, rtol=2**-21)


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_conversions_between_floats(kind, dtype):
    """Down and up, alone and in pairs, against torch; ties and overflow among the numbers."""
    x = X.copy()
    x[-4:] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 7e4]
    y = np.roll(x, 5)
    low, pair, up = results(
        f"""
        cvt.rn.{kind}.f32 %rs1, %r10;
        mov.b16 %rs2, 0;
        mov.b32 %r60, {{%rs1, %rs2}};
        cvt.rn.{kind}x2.f32 %r61, %r11, %r10;
        cvt.f32.{kind} %r62, %rs1;
        """,
        [x, y],
        3,
    )
    want_x, want_y = (torch.from_numpy(v).to(dtype) for v in (x, y))
    known = ~np.isnan(x) & ~np.isnan(y)
    bits_x, bits_y = (v.view(torch.int16).numpy().view(np.uint16) for v in (want_x, want_y))
    assert (low[known] == bits_x[known]).all()
    assert (pair[known] == (bits_y.astype(np.uint32) << 16 | bits_x)[known]).all()
    np.testing.assert_array_equal(up.view(np.float32), want_x.float().numpy())


def test_mixed_precision_multiply_add():
    body = """
        mov.b32 {%rs1, %rs2}, %r10;
        fma.rn.f32.bf16 %r60, %rs1, %rs2, %r11;
    """
    (got,) = results(body, [A, X], 1)
    for bits, addend, value in zip(A.tolist(), X.tolist(), got.view(np.float32), strict=True):
        a, b = (
            struct.unpack("<f", struct.pack("<I", h << 16))[0] for h in (bits & 0xFFFF, bits >> 16)
        )
        np.testing.assert_equal(float(value), fused(a, b, addend))


LANES = np.arange(32, dtype=np.uint32)


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        ("bfly.b32 %r60, %r10, 4, 31, -1", lambda lane: lane ^ 4),
        ("idx.b32 %r60, %r10, 3, 31, -1", lambda lane: 3),
        ("idx.b32 %r60, %r10, %r11, 31, -1", lambda lane: 31 - lane),
        ("up.b32 %r60, %r10, 3, 0, -1", lambda lane: lane - 3 if lane >= 3 else lane),
        ("down.b32 %r60, %r10, 3, 31, -1", lambda lane: lane + 3 if lane < 29 else lane),
        # Segments of 8 lanes.
        ("bfly.b32 %r60, %r10, 2, 0x181f, -1", lambda lane: lane ^ 2),
        (
            "down.b32 %r60, %r10, 2, 0x181f, -1",
            lambda lane: lane + 2 if lane % 8 < 6 else lane,
        ),
    ],
)
def test_shuffles(arguments, source):
    body = f"shfl.sync.{arguments};"
    values = np.concatenate([A, B])  # two warps
    reverse = np.tile(31 - LANES, 2)
    (got,) = results(body, [values, reverse], 1, threads=64)
    want = [values[32 * warp + source(lane)] for warp in range(2) for lane in range(32)]
    assert got.tolist() == want


def test_shuffles_tell_which_lanes_are_outside():
    body = "shfl.sync.down.b32 %r60|%p1, %r10, 5, 31, -1; selp.b32 %r61, 1, 0, %p1;"
    _, inside = results(body, [A], 2)
    assert inside.tolist() == [1] * 27 + [0] * 5


@pytest.mark.parametrize(
    ("operation", "reduce"),
    [
        ("add.s32", lambda x: sum(x) % 2**32),
        ("min.s32", lambda x: min(map(signed, x)) % 2**32),
        ("max.u32", max),
    ],
)
def test_reductions_over_a_warp(operation, reduce):
    (got,) = results(f"redux.sync.{operation} %r60, %r10, -1;", [np.concatenate([A, B])], 1, 64)
    want = [reduce(x.tolist()) for x in (A, B)]
    assert got.tolist() == [want[0]] * 32 + [want[1]] * 32
