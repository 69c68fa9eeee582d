"""out, mass, lse and all five gradients of the kernels against a float64 oracle, in Triton's
interpreter.

The numbers come from one child process for all cases (see ``worker`` and ``children``).
"""

import subprocess
import sys

import pytest

from .cases import CASES
from .children import assert_agrees, findings_of_worker, interpreted, selected


@pytest.fixture(scope="module")
def findings(request):
    """{case: complaints}, for the selected cases only."""
    return findings_of_worker("interpret", selected(request, "name"))


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_match_the_oracle(findings, name):
    assert name in findings, f"the child process stopped before this case: {findings['stderr']}"
    assert not findings[name], "\n".join(findings[name])


def test_bfloat16_is_refused_by_the_interpreter():
    """Triton's interpreter multiplies bfloat16 tiles as if they were integers, without a word."""
    program = """
import torch
from avar_kernels import visual_attn_func
x = torch.ones(1, 4, 1, 16, dtype=torch.bfloat16)
visual_attn_func(x, x, x, backend="triton")
"""
    done = interpreted("-c", program)
    assert "NotImplementedError: Triton's interpreter multiplies bfloat16" in done.stderr


def test_the_public_function_reaches_these_kernels():
    """Dense and packed, through the operators and autograd, against the sdpa backend; with a plan
    of the keys bit by bit the same."""
    program = """
import torch
from avar_kernels import plan_keys, visual_attn_func, visual_attn_varlen_func
torch.manual_seed(0)
def run(backend, packed, planned=False):
    torch.manual_seed(1)
    shape = (37,) if packed else (1, 37)
    q = torch.randn(*shape, 2, 16, requires_grad=True)
    k, v = (torch.randn(*shape, 1, 16, requires_grad=True) for _ in range(2))
    bias = torch.randn(3, requires_grad=True)
    types = torch.arange(37).reshape(shape) % 4 - 1
    options = dict(type_bias=bias, causal=True, backend=backend)
    cu = torch.tensor([0, 11, 37], dtype=torch.int32)
    if planned:
        offsets = (dict(cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=26, max_seqlen_k=26)
                   if packed else {})
        types = plan_keys(types, **offsets)
        assert types.blocks is not None
    if packed:
        result = visual_attn_varlen_func(q, k, v, cu, cu, 26, 26, types, **options)
    else:
        result = visual_attn_func(q, k, v, types, **options)
    lse = torch.where(torch.isfinite(result.lse), result.lse, 0.0)
    (result.out.square().sum() + result.mass[..., 1].sum() + lse.sum()).backward()
    return *result, q.grad, k.grad, v.grad, bias.grad
for packed in (False, True):
    plain = run("triton", packed)
    for a, b in zip(plain, run("sdpa", packed), strict=True):
        assert torch.allclose(a, b, atol=2e-5), (packed, (a - b).abs().max())
    for a, b in zip(plain, run("triton", packed, planned=True), strict=True):
        assert torch.equal(a, b), packed
print("agree")
"""
    assert_agrees(program)


def test_shared_prefixes_through_the_public_function():
    """Random sets of sequences through the operator and autograd, against the row-by-row oracle;
    with a plan of the keys bit by bit the same."""
    program = """
import sys
from functools import partial
sys.path.insert(0, "../../..")
import torch
from avar_kernels import plan_keys
from tests.kernels.calls import compare, run
from tests.kernels.prefix_calls import attend, by_rows, draw, poisoned
torch.set_num_threads(1)
for seed in range(4):
    call = draw(torch.Generator().manual_seed(seed), longest=40)
    want = run(partial(by_rows, call), call.leaves)
    got = run(partial(attend, call, "triton"), poisoned(call), torch.float32)
    compare(got, want, 3e-5)
    lengths = call.lengths
    plan = plan_keys(call.types, num_types=call.num_types, **lengths)
    again = run(partial(attend, call, "triton", types=plan, **lengths), poisoned(call),
                torch.float32)
    compare(again, got, 0.0)
print("agree")
"""
    assert_agrees(program)


def test_importing_the_package_does_not_import_triton():
    program = """
import sys, torch
by_torch = "triton" in sys.modules
import avar_kernels.triton_backend
assert by_torch or "triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
