"""The operator under torch.compile, its memory, and flash-attn's signatures."""

import subprocess
import sys

import pytest
import torch
from avar_kernels import (
    AttnOutput,
    KeyType,
    available_backends,
    backends,
    flash_attn_func,
    flash_attn_varlen_func,
    visual_attn_func,
)

FUSED = [name for name in ("sdpa", "cpu") if available_backends()[name]]


def inputs(dtype=torch.float32):
    torch.manual_seed(3)
    q = torch.randn(2, 33, 4, 16, dtype=dtype, requires_grad=True)
    k = torch.randn(2, 33, 2, 16, dtype=dtype, requires_grad=True)
    v = torch.randn(2, 33, 2, 16, dtype=dtype, requires_grad=True)
    return q, k, v, torch.randint(-1, 3, (2, 33))


def step(q, k, v, types, bias):
    out, mass, lse = visual_attn_func(q, k, v, types, type_bias=bias, causal=True)
    seen = torch.where(torch.isfinite(lse), lse, 0.0)
    return out.square().sum() + mass[..., KeyType.VISUAL].sum() + seen.sum()


def test_compiles_without_a_graph_break_and_agrees_with_eager_mode():
    q, k, v, types = inputs()
    bias = torch.tensor([0.0, 0.3, -0.2], requires_grad=True)
    leaves = (q, k, v, bias)
    plain = step(q, k, v, types, bias)
    want = torch.autograd.grad(plain, leaves)
    compiled = torch.compile(step, fullgraph=True)
    got_loss = compiled(q, k, v, types, bias)
    got = torch.autograd.grad(got_loss, leaves)
    assert torch.allclose(got_loss, plain, rtol=1e-6)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


# From torch 2.15 on, its own check reads a .grad that it should not.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("backend", FUSED)
def test_operator_registration_passes_opcheck(backend):
    q, k, v, types = inputs()
    table = torch.randn(4, 3, requires_grad=True)
    tables = (table, table.detach().exp().requires_grad_())
    arguments = (q, k, v, types, *tables, None, None, None, None, 0, 0)
    numbers = (3, 0.25, True, -1, -1, False, backend)
    torch.library.opcheck(torch.ops.avar_kernels.visual_attn.default, (*arguments, *numbers))


PEAK = """
import sys, torch
from avar_kernels import visual_attn_func
def kib(field):
    return int(next(x for x in open("/proc/self/status") if x.startswith(field)).split()[1])
def step(length):
    make = lambda heads: torch.randn(1, length, heads, 32, requires_grad=True)
    q, k, v = make(4), make(2), make(2)
    types = torch.arange(length)[None] % 3
    bias = torch.zeros(3, requires_grad=True)
    result = visual_attn_func(q, k, v, types, type_bias=bias, causal=True, backend=sys.argv[2])
    (result.out.sum() + result.mass[..., 1].sum() + result.lse.sum()).backward()
step(128)  # loads the code that the first call needs
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # the peak so far is forgotten
base = kib("VmRSS")
step(int(sys.argv[1]))
print(kib("VmHWM") - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", FUSED)
def test_memory_grows_linearly_with_length(backend):
    """Doubling L doubles the peak; one 8192 x 8192 float32 matrix alone would be 256 MiB."""

    def peak_kib(length: int) -> int:
        run = [sys.executable, "-c", PEAK, str(length), backend]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    short, long = peak_kib(4096), peak_kib(8192)
    assert long < 2.3 * short
    assert long < 256 * 1024


def test_flash_attn_signatures_return_the_output_only():
    q, k, v, _ = inputs()
    out = flash_attn_func(q, k, v, 0.0, None, True)
    want = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, enable_gqa=True
    ).transpose(1, 2)
    assert torch.allclose(out, want, atol=1e-5)
    offsets = torch.tensor([0, 33], dtype=torch.int32)
    packed = flash_attn_varlen_func(q[0], k[0], v[0], offsets, offsets, 33, 33, causal=True)
    assert torch.allclose(packed, want[0], atol=1e-5)


@pytest.mark.parametrize(
    "extra",
    [
        dict(dropout_p=0.1),
        dict(softcap=30.0),
        dict(alibi_slopes=torch.ones(4)),
        dict(return_attn_probs=True),
    ],
)
def test_flash_attn_options_we_lack_are_refused(extra):
    q, k, v, _ = inputs()
    with pytest.raises(NotImplementedError, match=next(iter(extra))):
        flash_attn_func(q, k, v, **extra)


def test_backends_say_whether_they_run_and_why_not():
    backends = available_backends()
    assert set(backends) == {"eager", "sdpa", "cpu", "triton"}
    assert backends["eager"]
    assert backends["sdpa"]
    for status in backends.values():
        assert status or status.reason


def test_a_named_backend_never_falls_back():
    q, k, v, types = inputs()
    for name, status in available_backends().items():
        if status:
            assert isinstance(visual_attn_func(q, k, v, types, backend=name), AttnOutput)
        else:
            with pytest.raises(RuntimeError, match=name):
                visual_attn_func(q, k, v, types, backend=name)


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "want"),
    [
        ("cuda", torch.bfloat16, 128, "triton"),
        ("cuda", torch.bfloat16, 512, "eager"),
        ("cuda", torch.float64, 64, "eager"),
        ("cpu", torch.float64, 64, "sdpa"),
        ("cpu", torch.bfloat16, 64, "cpu"),
        ("cpu", torch.float32, 2000, "sdpa"),
    ],
)
def test_the_default_is_a_backend_that_takes_the_call(monkeypatch, device, dtype, head_dim, want):
    """A head dimension above Triton's limit was handed to Triton, which refused it."""
    monkeypatch.setattr(backends, "_triton_status", lambda device: backends.BackendStatus(True))
    monkeypatch.setattr(backends, "_cpu_status", lambda: backends.BackendStatus(True))
    assert backends.resolve_backend(None, torch.device(device), dtype, head_dim) == want


def test_triton_refuses_head_dimensions_above_its_limit(monkeypatch):
    monkeypatch.setattr(backends, "_triton_status", lambda device: backends.BackendStatus(True))
    with pytest.raises(RuntimeError, match="head dimensions up to 256; got 300"):
        backends.resolve_backend("triton", torch.device("cuda"), torch.float16, 300)


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_brings_mixed_inputs_to_its_dtype(compiled):
    """Rotary embedding leaves q and k in float32 beside a bfloat16 v; that was a TypeError."""
    q, k, v, types = inputs()
    v = v.detach().bfloat16()

    def attend(q):
        return visual_attn_func(q, k, v, types, causal=True)

    with torch.autocast("cpu", torch.bfloat16):
        result = (torch.compile(attend, fullgraph=True) if compiled else attend)(q)
    assert result.out.dtype == torch.bfloat16
    assert result.mass.dtype == torch.float32
    want = visual_attn_func(q.bfloat16(), k.bfloat16(), v, types, causal=True)
    assert torch.equal(result.out, want.out)
    (grad,) = torch.autograd.grad(result.mass[..., 1].sum(), q)
    assert grad.dtype == torch.float32
    with pytest.raises(TypeError, match="v must have q's dtype"):
        attend(q)
