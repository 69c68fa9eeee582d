"""A change of attention by type of key, in the readings that AVAR's formula allows.

The paper multiplies the attention to image tokens by 1 + a and that to system tokens by 1 - a
(section 2). It does not say whether it means logits or weights. With s the factor of a key's type,
b its bias, z the logits and w = softmax(z + b) the weights:

    logits                 softmax(s z + b)
    weights                s w / sum(s w)       which is softmax(z + b + log s)
    weights_unnormalized   s w                  rows no longer sum to 1

The authors' slides add to the logits of image tokens: that is b.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

FORMS = ("logits", "weights", "weights_unnormalized")
LARGEST = 1e30
"""Bound of the size of summands and factors. Factors of weights are at least 1 / LARGEST. float32
holds them, and their products with logits and masses."""
Table = tuple[float, ...] | tuple[tuple[float, ...], ...]
"""A value by key type, (C,), or by head and key type, (H, C)."""
Attend = Callable[..., tuple[Tensor, Tensor]]
"""Takes the kernels' type_bias and type_scale; returns (B, L, H, D) output and (B, L, H, C)
masses."""


class Tables(NamedTuple):
    """The tables on a device, (C,) or (H, C) float32."""

    type_bias: Tensor
    type_scale: Tensor | None
    factors: Tensor | None
    """Factors of the weights, where these are not normalized again."""


@dataclass(frozen=True)
class Intervention:
    """A change of the attention in some layers."""

    bias: Table
    """Summand of the logits."""
    scale: Table
    """Factor of the logits, or of the weights."""
    layers: frozenset[int]
    """The layers to change."""
    form: str = "logits"
    """One of ``FORMS``."""
    queries: str = "all"
    """Role of the queries whose attention is changed."""
    _tables: dict[torch.device, Tables] = field(default_factory=dict, compare=False)

    def tables(self, device: torch.device) -> Tables:
        """Copied to a device once: a copy from the host in every forward would wait for the device,
        and no CUDA graph could contain it."""
        if device not in self._tables:
            # Also for later forwards with gradients, so these must not be inference tensors.
            with torch.inference_mode(False):
                bias, scale = (
                    torch.tensor(x, dtype=torch.float32, device=device)
                    for x in (self.bias, self.scale)
                )
                if self.form == "logits":
                    made = Tables(bias, scale, None)
                else:
                    factors = scale if self.form == "weights_unnormalized" else None
                    made = Tables(bias + scale.log(), None, factors)
            self._tables[device] = made
        return self._tables[device]


@dataclass
class Change:
    """An intervention in one forward."""

    tables: Tables
    layers: frozenset[int]
    queries: Tensor | None = None
    """(B, L) bool, the queries whose attention is changed; None for all."""

    def of(self, attend: Attend) -> tuple[Tensor, Tensor]:
        """The changed output and masses of a layer."""
        bias, scale, factors = self.tables
        out, mass = attend(type_bias=bias, type_scale=scale)
        if factors is not None:
            # The masses are s_c w_c / S of the weights' masses w_c, and S = sum_c s_c w_c. The w_c
            # sum to 1, so sum_c mass_c / s_c = 1 / S. A query without keys has no mass: S = 0.
            inverse = (mass / factors).sum(-1, keepdim=True)
            total = torch.where(inverse > 0, 1 / inverse.clamp(min=1e-38), 0.0)
            out, mass = (out * total).to(out.dtype), mass * total
        if self.queries is None:
            return out, mass
        plain: Any = attend()
        chosen = self.queries[..., None, None]
        return torch.where(chosen, out, plain[0]), torch.where(chosen, mass, plain[1])
