"""Small calls that several test modules make: inputs, a backend, the oracle, and comparisons."""

from collections.abc import Callable

import torch
from avar_kernels import visual_attn_func
from torch import Tensor

from .attention_oracle import attention_oracle, finite_loss

NAMES = ("out", "mass", "lse", "dq", "dk", "dv", "dtype_bias", "dtype_scale")
# B, Lq, Lk, H, Hkv, D, Dv, causal, window
SHAPES = {
    "mha": (2, 7, 7, 3, 3, 16, 16, False, (-1, -1)),
    "gqa7_causal": (1, 9, 9, 7, 1, 17, 17, True, (-1, -1)),
    "gqa_decode": (2, 1, 13, 4, 2, 16, 24, True, (-1, -1)),
    "chunk_after_cache": (2, 5, 12, 4, 2, 17, 9, True, (-1, -1)),
    "more_queries_than_keys": (2, 12, 5, 4, 2, 9, 17, True, (-1, -1)),
    "window": (1, 11, 14, 2, 1, 8, 8, False, (3, 2)),
    "causal_window": (1, 14, 11, 2, 1, 8, 8, True, (4, -1)),
    "right_window": (2, 8, 8, 2, 2, 8, 8, False, (-1, 0)),
    "no_keys": (1, 3, 0, 2, 1, 8, 8, True, (-1, -1)),
    "no_queries": (1, 0, 3, 2, 1, 8, 8, False, (-1, -1)),
}


def make(shape, dtype, num_types=4, seed=0):
    """Leaves q, k, v, type_bias, type_scale; key types; and the options of the call."""
    batch, num_queries, num_keys, heads, kv_heads, head_dim, value_dim, causal, window = shape
    torch.manual_seed(seed)
    q = torch.randn(batch, num_queries, heads, head_dim, dtype=torch.float64) + 0.3
    k = torch.randn(batch, num_keys, kv_heads, head_dim, dtype=torch.float64) + 0.3
    v = torch.randn(batch, num_keys, kv_heads, value_dim, dtype=torch.float64) + 0.3
    key_types = torch.randint(-1, num_types, (batch, num_keys), dtype=torch.int32)
    key_types[:1, : num_keys // 4] = -1  # left padding: early causal rows see nothing
    bias = torch.randn(heads, num_types, dtype=torch.float64)
    scale = torch.randn(heads, num_types, dtype=torch.float64)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    return [q, k, v, bias, scale], key_types, dict(causal=causal, window_size=window)


def poisoned(leaves, key_types):
    """The leaves with NaN in the keys and values of padding, whose content must not matter."""
    leaves = [x.clone() for x in leaves]
    leaves[1][key_types < 0] = float("nan")
    leaves[2][key_types < 0] = float("nan")
    return leaves


def attend(types, options, backend) -> Callable:
    """The public function with four types, as a function of the leaves."""

    def function(q, k, v, bias, scale):
        table = torch.float64 if q.dtype == torch.float64 else torch.float32
        return visual_attn_func(
            q, k, v, types, num_types=4, type_bias=bias.to(table), type_scale=scale.to(table),
            backend=backend, **options,
        )  # fmt: skip

    return function


def by_oracle(types, options) -> Callable:
    """The row-by-row oracle with four types, as a function of the leaves."""

    def function(q, k, v, bias, scale):
        return attention_oracle(q, k, v, types, 4, bias, scale, **options)

    return function


def run(function, leaves, dtype=None) -> list[Tensor]:
    """out, mass, lse and the gradients of the five leaves, in the order of ``NAMES``."""
    leaves = [x.detach().to(dtype or x.dtype).requires_grad_() for x in leaves]
    outputs = function(*leaves)
    loss = finite_loss(outputs, seed=1)
    if loss.requires_grad:  # the oracle of an empty problem depends on nothing
        loss.backward()
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    return [x.detach() for x in outputs] + grads


def compare(got, want, tolerance) -> None:
    """Fails where an error exceeds ``tolerance`` times the largest number of its tensor, or 1."""
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert a.shape == b.shape, name
        assert not a.isnan().any(), f"{name} has NaN"
        assert torch.equal(a.isinf(), b.isinf()), f"{name}: infinities differ"
        error = torch.where(b.isinf(), 0.0, a.double() - b.double()).abs()
        worst = error.max().item() if error.numel() else 0.0
        largest = torch.nan_to_num(b, neginf=0.0).abs().max().item() if b.numel() else 0.0
        bound = tolerance * max(1.0, largest)
        assert worst <= bound, f"{name}: error {worst:.2e} above {bound:.2e}"
