"""Attention of chosen queries to single keys, without a matrix of all queries and keys."""

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from .attached import attachment_of
from .contexts import subset
from .tokens import ROLES


@dataclass
class AttentionMaps:
    """The attention of a forward's chosen queries to its keys of one type."""

    chosen: str | Tensor
    """The role of the queries, or (B, L) bool."""
    key_type: int
    layers: frozenset[int]
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    """{layer: per row of the batch (T, K) float32}: the attention weight of each query on each key,
    mean over heads. Queries and keys are in the order of the row."""
    queries: Tensor | None = None
    """(B, L) bool, the T queries of each row. None before the first forward."""
    keys: Tensor | None = None
    """(B, L) bool, the K keys of each row."""

    def begin(self, queries: Tensor, keys: Tensor) -> None:
        """A forward begins."""
        self.weights, self.queries, self.keys = {}, queries, keys

    @torch.no_grad()
    def add(self, layer: int, q: Tensor, k: Tensor, lse: Tensor, scale: float) -> None:
        """Reads a layer: exp(scale q . k - lse) is the weight that the kernel gave each key.

        Args:
            layer: its index in the model.
            q: (B, L, H, D). k: (B, L, Hkv, D). lse: (B, H, L).
            scale: of the logits.
        """
        if layer not in self.layers or layer in self.weights:
            return
        # The kernels attend to inputs in autocast's dtype. Here it would also round the logits,
        # whose errors grow in the exponential.
        if torch.is_autocast_enabled(q.device.type):
            dtype = torch.get_autocast_dtype(q.device.type)
            q, k = q.to(dtype), k.to(dtype)
        with torch.autocast(q.device.type, enabled=False):
            self.weights[layer] = self._rows(q, k, lse, scale)

    def _rows(self, q: Tensor, k: Tensor, lse: Tensor, scale: float) -> list[Tensor]:
        assert self.queries is not None
        assert self.keys is not None
        group = q.shape[2] // k.shape[2]
        rows = []
        for row in range(len(q)):
            at, on = self.queries[row].nonzero()[:, 0], self.keys[row].nonzero()[:, 0]
            total = q.new_zeros(len(at), len(on), dtype=torch.float32)
            for head in range(q.shape[2]):
                logits = q[row, at, head].float() @ k[row, on, head // group].float().T * scale
                total += torch.exp(logits - lse[row, head, at].float()[:, None])
            rows.append(torch.where(on <= at[:, None], total / q.shape[2], 0.0))
        return rows


@contextlib.contextmanager
def record_maps(
    model: nn.Module,
    queries: str | Tensor = "response",
    key_type: int = KeyType.VISUAL,
    layers: list[int] | None = None,
) -> Iterator[AttentionMaps]:
    """Records how much chosen tokens look at each single key of a type, in whole forwards.

    Memory is that of (T, K) weights per layer for T queries and K keys, not of L x L. Sums over the
    keys are the masses that ``record_attention`` gives.

    Args:
        model: an attached model.
        queries: whose attention is read: the tokens of a role, as in ``query_mask``, or those of a
            (B, L) bool mask.
        key_type: type of the keys.
        layers: text layers, by their index in the model; by default all that have attention.

    Yields:
        AttentionMaps of the latest forward, without gradient.

    Raises:
        RuntimeError: maps are already recorded on this model.
        ValueError: the model does not have these layers or this key type, the role is unknown, or
            the model is not attached. A forward raises with a cache, packed rows, a split sequence
            or an intervention, or if the mask has another shape.
    """
    attachment = attachment_of(model)
    if attachment.maps is not None:
        raise RuntimeError(
            "record_maps is already active on this model; leave it before entering again."
        )
    if isinstance(queries, str) and queries not in ROLES:
        raise ValueError(f"queries must be one of {', '.join(ROLES)}, or a mask; got {queries!r}.")
    key_type = operator.index(key_type)
    if not 0 <= key_type < attachment.typing.num_types:
        raise ValueError(
            f"key_type must be from 0 to {attachment.typing.num_types - 1}; got {key_type}."
        )
    chosen_layers = subset("layers", layers, attachment.layers)
    attachment.maps = AttentionMaps(queries, key_type, chosen_layers)
    try:
        yield attachment.maps
    finally:
        attachment.maps = None
