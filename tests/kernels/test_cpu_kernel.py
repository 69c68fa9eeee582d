"""The C++ kernel with every instruction set that runs here: out, mass, lse and all five gradients.

Small shapes against the row-by-row oracle, shapes that span several blocks of 64 keys and tiles of
64 columns against the specification in float64. Budget: twice the error of the specification in
the same dtype, and a band for what it happens to get exact.
"""

from itertools import pairwise

import pytest
import torch
from avar_kernels import (
    available_backends,
    cpu,
    visual_attn_func,
    visual_attn_varlen_func,
    visual_attn_with_kvcache,
)

from .calls import NAMES, SHAPES, attend, by_oracle, compare, make, poisoned, run
from .random_calls import draw, outcome

pytestmark = pytest.mark.skipif(bool(cpu.WHY_NOT), reason=cpu.WHY_NOT)
ISAS = [name for name in cpu.instruction_sets() if name] if available_backends()["cpu"] else []
# B, Lq, Lk, H, Hkv, D, Dv, causal, window
LARGE = {
    "several_tiles": (1, 131, 131, 7, 1, 40, 24, True, (-1, -1)),
    "several_chunks": (1, 90, 1100, 2, 1, 8, 8, True, (-1, -1)),
    "many_queries": (1, 700, 140, 2, 2, 19, 7, True, (-1, -1)),
    "window": (2, 333, 333, 2, 1, 16, 16, False, (70, 9)),
    "causal_window": (1, 400, 650, 3, 3, 16, 33, True, (129, -1)),
    "full": (2, 65, 193, 4, 2, 64, 64, False, (-1, -1)),
    "one_column": (1, 257, 257, 1, 1, 1, 1, True, (-1, -1)),
    "wide": (1, 70, 70, 2, 1, 520, 300, True, (-1, -1)),
}
# A single tile per key head: narrow or wide, keys read where they lie or packed.
DECODE = {
    "one_row": (3, 1, 330, 8, 2, 64, 32, True, (-1, -1)),
    "few_rows": (2, 5, 300, 14, 2, 32, 64, True, (-1, -1)),
    "odd": (1, 2, 260, 6, 2, 40, 24, True, (100, -1)),
}
BAND = {torch.float32: 3e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    monkeypatch.setattr(cpu, "instruction_set", request.param)
    return request.param


def within_budget(got, plain, want, band):
    for name, a, reference, b in zip(NAMES[: len(want)], got, plain, want, strict=True):
        assert a.shape == b.shape, name
        assert not a.isnan().any(), f"{name} has NaN"
        assert torch.equal(a.isinf(), b.isinf()), f"{name}: infinities differ"
        if not b.numel():
            continue
        finite = torch.isfinite(b)
        error = torch.where(finite, a.double() - b, 0.0).abs()
        allowed = torch.where(finite, reference.double() - b, 0.0).abs()
        size = torch.where(finite, b, 0.0).abs()
        for kind in (torch.max, torch.mean):
            budget = 2 * kind(allowed) + band * kind(size).clamp(min=kind(torch.ones(1)))
            assert kind(error) <= budget, f"{name}: {kind(error):.2e} above {budget:.2e}"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_small_shapes_match_the_oracle(isa, shape):
    leaves, types, options = make(shape, torch.float32)
    got = run(attend(types, options, "cpu"), poisoned(leaves, types))
    compare(got, run(by_oracle(types, options), leaves, torch.float64), 1e-5)


def in_runs(types):
    """Types as real batches have them: plain, general and absent blocks."""
    types = types.sort(dim=1).values
    return types.roll(types.shape[1] // 3, dims=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE.keys())
def test_large_shapes_stay_within_the_budget(isa, shape, shuffled, dtype):
    if dtype != torch.float32 and (shuffled or isa in ("portable", "avx2")):
        pytest.skip("the dtype only changes how this set loads and stores")
    leaves, types, options = make(shape, dtype)
    types = types if shuffled else in_runs(types)
    got = run(attend(types, options, "cpu"), poisoned(leaves, types))
    plain = run(attend(types, options, "eager"), leaves)
    want = run(attend(types, options, "eager"), leaves, torch.float64)
    within_budget(got, plain, want, BAND[dtype])


@pytest.mark.parametrize("dtype", BAND)
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("shape", DECODE.values(), ids=DECODE.keys())
def test_few_queries_on_views_of_a_cache(isa, shape, shuffled, dtype):
    """Keys and values are parts of longer tensors, as those of a cache with room to grow."""
    leaves, types, options = make(shape, dtype)
    types = types if shuffled else in_runs(types)
    roomy = poisoned(leaves, types)
    for i in (1, 2):
        room = torch.full((*roomy[i].shape[:2], 7, 1), float("nan"), dtype=dtype)
        heads, width = roomy[i].shape[2:]
        wide = room.expand(-1, -1, -1, width).clone()
        wide[:, :, :heads] = roomy[i]
        roomy[i] = wide[:, :, :heads]
    got = attend(types, options, "cpu")(*roomy)
    plain = attend(types, options, "eager")(*leaves)
    want = attend(types, options, "eager")(*(x.double() for x in leaves))
    within_budget(got, plain, want, BAND[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("blocks_per_rise", [1, 2, 3, 6])
def test_a_maximum_that_rises_while_blocks_wait_for_their_values(isa, blocks_per_rise, dtype):
    """Weights of several blocks are multiplied together, but each refers to the maximum of its own
    time. A rise in the first, second or last block must reach all blocks before it, none after it.
    """
    leaves, _, options = make((1, 80, 1000, 2, 1, 32, 32, False, (-1, -1)), dtype)
    step = torch.arange(1000) // (64 * blocks_per_rise)
    leaves[0][..., 0], leaves[1][..., 0] = 8.0, (5.0 * step)[:, None].to(dtype)
    leaves[3], leaves[4] = torch.zeros_like(leaves[3]), torch.ones_like(leaves[4])
    types = (torch.arange(1000) % 250 // 63)[None].to(torch.int32)
    got = run(attend(types, options, "cpu"), leaves)
    plain = run(attend(types, options, "eager"), leaves)
    want = run(attend(types, options, "eager"), leaves, torch.float64)
    within_budget(got, plain, want, BAND[dtype])


def test_random_calls(isa):
    """Sixty of the calls that test_random_cases makes with the default instruction set."""
    for seed in range(60):
        case = draw(torch.Generator().manual_seed(seed))
        want = outcome(*case, "eager", torch.float64, seed)
        got = outcome(*case, "cpu", torch.float32, seed)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a.isinf(), b.isinf())
            finite = torch.where(b.isinf(), 0.0, b)
            assert torch.allclose(torch.where(b.isinf(), 0.0, a.double()), finite, 1e-4, 2e-4), seed


def test_mass_without_types_and_with_sixteen(isa):
    leaves, _, options = make(LARGE["several_tiles"], torch.float32)
    q, k, v = leaves[:3]
    mass = visual_attn_func(q, k, v, backend="cpu", **options).mass
    assert torch.allclose(mass[..., 0], torch.ones(()), atol=1e-6)
    assert (mass[..., 1:] == 0).all()
    types = torch.arange(k.shape[1])[None] % 16
    got, want = (
        visual_attn_func(q, k, v, types, num_types=16, backend=name, **options).mass
        for name in ("cpu", "eager")
    )
    assert torch.allclose(got, want, atol=1e-6)


def test_any_strides_give_the_same_bits(isa):
    leaves, types, options = make(LARGE["full"], torch.float32)
    q, k, v = leaves[:3]
    want = visual_attn_func(q, k, v, types, num_types=4, backend="cpu", **options)
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    dims_first = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v)]
    sliced = [torch.cat([x, x], dim=3)[..., : x.shape[3]] for x in (q, k, v)]
    for inputs in (heads_first, dims_first, sliced):
        got = visual_attn_func(*inputs, types, num_types=4, backend="cpu", **options)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_packed_is_each_sequence_alone(isa):
    """Lengths on either side of blocks and tiles, empty ones, and tokens behind the last."""
    rows, keys = [130, 0, 64, 1, 33, 3], [140, 5, 64, 200, 0, 3]
    shape = (1, sum(rows) + 2, sum(keys) + 3, 4, 2, 24, 16, True, (-1, -1))
    leaves, types, _ = make(shape, torch.float32)
    cu_q, cu_k = (torch.tensor([0, *n]).cumsum(0).to(torch.int32) for n in (rows, keys))
    packed = dict(num_types=4, causal=True)

    def together(q, k, v, bias, scale):
        return visual_attn_varlen_func(
            q[0], k[0], v[0], cu_q, cu_k, max(rows), max(keys), types[0], type_bias=bias,
            type_scale=scale, backend="cpu", **packed,
        )  # fmt: skip

    def alone(q, k, v, bias, scale):
        parts = [
            visual_attn_func(
                q[:, a:b], k[:, c:d], v[:, c:d], types[:, c:d], type_bias=bias, type_scale=scale,
                backend="cpu", **packed,
            )
            for (a, b), (c, d) in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True)
        ]  # fmt: skip
        out = torch.cat([p.out[0] for p in parts] + [q.new_zeros(2, 4, 16)])
        mass = torch.cat([p.mass[0] for p in parts] + [q.new_zeros(2, 4, 4)])
        lse = torch.cat([p.lse[0] for p in parts] + [q.new_full((4, 2), float("-inf"))], dim=1)
        return out, mass, lse

    leaves = [*leaves[:3], *(x.float() for x in leaves[3:])]
    compare(run(together, leaves), run(alone, leaves), 1e-5)


@pytest.mark.parametrize("shape", ["gqa7_causal", "chunk_after_cache", "causal_window", "mha"])
def test_a_type_hidden_by_a_bias_of_minus_infinity(isa, shape):
    leaves, types, options = make(SHAPES[shape], torch.float32)
    leaves[3][0] = float("-inf")  # one head sees nothing at all
    leaves[3][1, :2] = float("-inf")
    got, want = (
        run(attend(types, options, name), leaves, dtype)
        for name, dtype in (("cpu", torch.float32), ("eager", torch.float64))
    )
    compare(got, want, 1e-5)


def test_logits_far_from_zero(isa):
    """Logits of some hundreds lose what float32 itself loses of them, and nothing overflows."""
    leaves, types, options = make(LARGE["causal_window"], torch.float32)
    leaves[0], leaves[3] = leaves[0] * 40, leaves[3] * 60
    leaves[3][0, 1] = -1e4
    plain, want = (
        run(attend(types, options, "eager"), leaves, dtype)
        for dtype in (torch.float32, torch.float64)
    )
    within_budget(run(attend(types, options, "cpu"), leaves), plain, want, 2e-4)


def test_nan_in_a_visible_key_is_not_hidden(isa):
    leaves, types, options = make(LARGE["several_tiles"], torch.float32)
    q, k, v = leaves[:3]
    types = types.clamp(min=0)
    k[0, 100] = float("nan")
    out = visual_attn_func(q, k, v, types, num_types=4, backend="cpu", **options).out
    assert out[0, 100:].isnan().all()
    assert out[0, :64].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_run_gives_the_same_bits(isa, dtype):
    leaves, types, options = make(LARGE["several_chunks"], dtype)
    first, second = (run(attend(types, options, "cpu"), leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_decoding_agrees_with_the_specification(isa):
    leaves, types, _ = make((2, 3, 150, 4, 2, 24, 16, True, (-1, -1)), torch.float32)
    lengths = torch.tensor([150, 70])
    got, want = (
        visual_attn_with_kvcache(*leaves[:3], types, lengths, num_types=4, backend=name)
        for name in ("cpu", "eager")
    )
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_half_precision_numbers_survive_the_way_through():
    """Every float16 and bfloat16 number, subnormal ones too: one key, so out is its value."""
    for dtype in (torch.float16, torch.bfloat16):
        bits = torch.arange(-(2**15), 2**15).to(torch.int16)
        numbers = bits.view(dtype)
        normal = numbers[numbers.isfinite() & (numbers.abs().float() > 1e-37)]
        v = normal[: len(normal) // 16 * 16].reshape(-1, 1, 1, 16)
        q = torch.zeros(len(v), 1, 1, 16, dtype=dtype)
        for name in ISAS:
            cpu.instruction_set = name
            try:
                assert torch.equal(visual_attn_func(q, q, v, backend="cpu").out, v), (name, dtype)
            finally:
                cpu.instruction_set = None


def test_what_the_kernel_does_not_take_is_refused():
    x = torch.zeros(1, 2, 1, 8)
    with pytest.raises(RuntimeError, match="'cpu' takes float32.*float64.*'sdpa'"):
        visual_attn_func(*[x.double()] * 3, backend="cpu")
    wide = torch.zeros(1, 2, 1, cpu.MAX_HEAD_DIM + 1)
    with pytest.raises(RuntimeError, match="'cpu' takes head dimensions up to 1024; got 1025"):
        visual_attn_func(wide, wide, wide, backend="cpu")
    assert visual_attn_func(wide, wide, wide).out.shape == wide.shape  # the default finds another
