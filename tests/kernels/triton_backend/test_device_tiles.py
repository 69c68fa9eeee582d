"""The kernels with the tiles and element types that GPUs get, bfloat16 included, against a float64
oracle: Triton's interpreter imitates the chip (see ``imitation``)."""

import pytest

from .cases import DEVICE_CASES
from .children import assert_agrees, findings_of_worker, selected

REQUESTS = [
    *(f"sm90:{dtype}:{name}" for dtype in ("bfloat16", "float16") for name in DEVICE_CASES),
    *(
        f"{arch}:bfloat16:{name}"
        for arch in ("sm80", "sm89", "sm100")
        for name in ("typed", "wide")
    ),
    *(f"gfx942:{dtype}:rich" for dtype in ("bfloat16", "float16")),
    "sm90:float32:short",
]


@pytest.fixture(scope="module")
def findings(request):
    """{request: complaints}, for the selected ones only."""
    return findings_of_worker("imitate", selected(request, "asked"))


@pytest.mark.parametrize("asked", REQUESTS)
def test_outputs_and_gradients_match_the_oracle(findings, asked):
    assert asked in findings, f"the child process stopped before this case: {findings['stderr']}"
    assert not findings[asked], "\n".join(findings[asked])


def test_decoding_and_column_sums_in_bfloat16():
    """Weights and out are rounded to bfloat16: four relative roundings of the sum of absolute
    terms, which for mass is mass itself. Logits and sums are float32."""
    program = """
import torch
from imitation import imitate
from avar_kernels import attn_received, visual_attn_func, visual_attn_with_kvcache
imitate("sm90")
torch.manual_seed(0)
q = torch.randn(2, 3, 14, 128).bfloat16()
k, v = (torch.randn(2, 1100, 2, 128).bfloat16() for _ in range(2))
types = torch.randint(-1, 3, (2, 1100), dtype=torch.int32)
lengths = torch.tensor([1100, 360], dtype=torch.int32)
wide = [x.double() for x in (q, k, v)]
got = visual_attn_with_kvcache(q, k, v, types, lengths, backend="triton")
want = visual_attn_with_kvcache(*wide, types, lengths, backend="eager")
sizes = visual_attn_with_kvcache(*wide[:2], wide[2].abs(), types, lengths, backend="eager")
assert torch.allclose(got.lse.double(), want.lse, rtol=1e-6, atol=1e-5)
for a, b, size in zip(got[:2], want[:2], sizes[:2], strict=True):
    assert ((a.double() - b).abs() <= 4 * 2**-8 * size + 1e-6).all()
weight = torch.rand(2, 3)
lse = visual_attn_func(*wide, types, causal=True, backend="eager").lse
columns = attn_received(q, k, lse.float(), weight, types, causal=True, backend="triton")
want = attn_received(*wide[:2], lse, weight, types, causal=True, backend="eager")
assert torch.allclose(columns.double(), want, rtol=1e-4, atol=1e-6), (columns - want).abs().max()
print("agree")
"""
    assert_agrees(program)


def test_the_imitation_rounds_and_multiplies_as_torch_does():
    """Ties, subnormal numbers, overflow, infinities and NaN among the numbers; without the
    imitation the same kernel multiplies integers."""
    program = """
import torch, triton, triton.language as tl
from imitation import imitate

@triton.jit
def narrow(x_ptr, out_ptr, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    tl.store(out_ptr + at, tl.load(x_ptr + at).to(tl.bfloat16))

@triton.jit
def product(a_ptr, b_ptr, out_ptr):
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at)))

@triton.jit
def added(a_ptr, out_ptr):
    at = tl.arange(0, 16)
    tl.store(out_ptr + at, tl.load(a_ptr + at) + tl.load(a_ptr + at))

torch.manual_seed(0)
a, b = torch.randn(2, 16, 16).bfloat16().unbind(0)
want, out = a.float() @ b.float(), torch.empty(16, 16)
product[(1,)](a, b, out)
assert (out - want).abs().max() > 1e6
imitate("sm90")
product[(1,)](a, b, out)
assert torch.allclose(out, want, rtol=1e-6, atol=1e-6)
bits = torch.randint(-(2**31), 2**31, (8192,), dtype=torch.int64).to(torch.int32)
bits[:4096] = (bits[:4096] & ~0xFFFF) | 0x8000  # ties
x = bits.view(torch.float32)
x[:6] = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 3.4e38])
got = torch.empty(8192, dtype=torch.bfloat16)
narrow[(1,)](x, got, 8192)
assert torch.equal(got.isnan(), x.isnan())
known = ~x.isnan()
assert torch.equal(got[known], x[known].bfloat16())
try:
    added[(1,)](a, got)
except Exception as error:
    assert "would be done on integers" in repr(error) + repr(error.__cause__)
else:
    raise AssertionError("a sum of bfloat16 numbers was taken")
print("agree")
"""
    assert_agrees(program)
