"""What acts on the forwards of an attached model: recordings, and changes of its logits."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Recording:
    """Attention masses of the latest forward inside ``record_attention``."""

    mass: dict[int, Tensor] = field(default_factory=dict)
    """{layer: (B, L, H, 3) float32}, differentiable. Layers are named by their index in the model;
    a recurrent layer has no masses. With a cache, L counts only the new tokens. With a split
    sequence, H counts only this rank's heads."""
    key_types: Tensor | None = None
    """(B, Lk) int32 types of all keys, which the masses are sums over. With a cache, Lk includes
    the cached keys. None before the first forward."""


@dataclass(frozen=True)
class Intervention:
    """A change of the attention logits."""

    bias: tuple[float, ...] | tuple[tuple[float, ...], ...]
    """Summand by key type, (3,), or by head and key type, (H, 3)."""
    scale: tuple[float, ...] | tuple[tuple[float, ...], ...]
    """Factor by key type, (3,), or by head and key type, (H, 3)."""
    layers: frozenset[int]
    """The layers to change."""
    _tables: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False)

    def tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Bias and scale on a device, float32. They are copied there once: a copy from the host in
        every forward would wait for the device, and no CUDA graph could contain it."""
        if device not in self._tables:
            # Also for later forwards with gradients, so these must not be inference tensors.
            with torch.inference_mode(False):
                bias, scale = (
                    torch.tensor(x, dtype=torch.float32, device=device)
                    for x in (self.bias, self.scale)
                )
            self._tables[device] = bias, scale
        return self._tables[device]
