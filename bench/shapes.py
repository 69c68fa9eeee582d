"""Inputs of the benchmarks: one layer of Qwen2.5-VL-7B on a prompt with one image."""

from typing import NamedTuple

import torch
from torch import Tensor

HEADS, KV_HEADS, HEAD_DIM, NUM_TYPES = 28, 4, 128, 3
SHAPE = "B1 H28 Hkv4 D128 causal"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.bfloat16,) if DEVICE == "cuda" else (torch.float32, torch.bfloat16)
# Doubling, to show how cost grows; the longest take minutes where there is no GPU.
LENGTHS = (2048, 4096, 8192, 16384) if DEVICE == "cuda" else (256, 512, 1024, 2048)
# Eager keeps L x L matrices: above this length it is not tried.
EAGER_MAX_LENGTH = 8192 if DEVICE == "cuda" else 4096

# Nothing is timed before it agrees with the specification at this length, within this error.
GATE_LENGTH, GATE = 192, {torch.float32: 2e-5, torch.bfloat16: 3e-2}


class Inputs(NamedTuple):
    """Leaves q, k, v of (1, L, heads, D), key types (1, L) and cotangents of out and mass."""

    q: Tensor
    k: Tensor
    v: Tensor
    types: Tensor
    grad_out: Tensor
    grad_mass: Tensor


def key_types(length: int, shuffled: bool = False) -> Tensor:
    """System prompt, text, one image over half of the keys, text; or the same in random order."""
    types = torch.zeros(1, length, dtype=torch.int32)
    types[:, : length // 32], types[:, length // 16 : length // 16 + length // 2] = 2, 1
    if shuffled:
        order = torch.randperm(length, generator=torch.Generator().manual_seed(0))
        types = types[:, order]
    return types.to(DEVICE)


def make_inputs(length: int, dtype: torch.dtype, shuffled: bool = False) -> Inputs:
    """The same numbers on every call."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def normal(heads: int, dim: int, kind: torch.dtype) -> Tensor:
        shape = (1, length, heads, dim)
        return torch.randn(shape, generator=generator, device=DEVICE).to(kind)

    q = normal(HEADS, HEAD_DIM, dtype).requires_grad_()
    k, v = (normal(KV_HEADS, HEAD_DIM, dtype).requires_grad_() for _ in range(2))
    grads = normal(HEADS, HEAD_DIM, dtype), normal(HEADS, NUM_TYPES, torch.float32)
    return Inputs(q, k, v, key_types(length, shuffled), *grads)


def causal_flops(length: int, mode: str) -> float:
    """FLOPs of causal attention's products: 2 forward, 5 backward, each over half of the plane."""
    products = {"forward": 2, "backward": 5, "forward_backward": 7}[mode]
    return products * 2 * HEADS * length * length * HEAD_DIM / 2
