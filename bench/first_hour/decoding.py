"""One new query per sequence on a long cache: bytes per second beside a plain copy."""

from functools import partial

import torch
from avar_kernels import visual_attn_with_kvcache
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..measure import copy_bandwidth
from ..shapes import DEVICE, HEAD_DIM, HEADS, KV_HEADS, key_types
from .clock import milliseconds_in_turns
from .part_report import PartReport

DTYPE = torch.bfloat16


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, enable_gqa=True)


def run(report: PartReport) -> None:
    """One row per (batch, keys, provider); reading keys and values once is the work."""
    caches, batches, rounds = (
        ((512,), (2,), 3) if report.dry else ((4096, 32768, 131072), (1, 16), 50)
    )
    for batch in batches:
        for keys in caches:
            if report.has(batch=batch, keys=keys):
                continue
            q = torch.randn(batch, 1, HEADS, HEAD_DIM, device=DEVICE).to(DTYPE)
            k, v = (
                torch.randn(batch, keys, KV_HEADS, HEAD_DIM, device=DEVICE, dtype=DTYPE)
                for _ in range(2)
            )
            types = key_types(keys).expand(batch, -1).contiguous()
            times = milliseconds_in_turns(
                {
                    "avar": partial(visual_attn_with_kvcache, q, k, v, types),
                    "sdpa_without_mass": partial(_sdpa, q, k, v),
                },
                rounds,
            )
            for name, ms in times.items():
                rate = (k.nbytes + v.nbytes) / ms * 1e3
                report.add(
                    batch=batch, keys=keys, provider=name, ms=round(ms, 4),
                    gb_per_s=round(rate / 1e9, 1),
                    percent_of_copy=round(100 * rate / copy_bandwidth(), 1),
                )  # fmt: skip
