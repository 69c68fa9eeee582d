"""Prompts whose keys the rows of a cache share, so that each prompt is stored and read once."""

import torch
from avar_kernels import PrefixPlan, plan_prefixes
from torch import Tensor
from transformers import Cache

from .call import AttnCall
from .key_typing import KeyTyping

_PROMPTS_OF_CACHE = "avar_prompts"
_CALL_OF_CACHE = "avar_call"


class SharedPrompts:
    """P prompts of Lp tokens, padded on the left, and the R rows of a cache that continue them.

    Args:
        ids: (P, Lp) int64 tokens.
        mask: (P, Lp) bool, false for padding.
        layers: {layer: keys and values, (P, Hkv, Lp, D) each} of the text layers with attention.
        rows: (R,) int32, the prompt of each row.
    """

    def __init__(
        self, ids: Tensor, mask: Tensor, layers: dict[int, tuple[Tensor, Tensor]], rows: Tensor
    ) -> None:
        self.ids, self.mask, self.layers, self.rows = ids, mask, layers, rows
        self._types: Tensor | None = None
        self._plan: PrefixPlan | None = None
        self._tail: Tensor | None = None

    def plan(self, typing: KeyTyping) -> PrefixPlan:
        """The prompts as the kernels read them, prepared once."""
        if self._plan is None:
            types, num_types = self.types(typing), typing.num_types
            self._plan = plan_prefixes(self.rows, types, num_types=num_types)
        return self._plan

    def types(self, typing: KeyTyping) -> Tensor:
        """(P, Lp) int32 key types."""
        if self._types is None:
            self._types = typing(self.ids, self.mask)
        return self._types

    def types_behind(self, ids: Tensor, mask: Tensor | None, typing: KeyTyping) -> Tensor:
        """(R, L) int32 types of the rows' own (R, L) tokens, which follow their prompts.

        A token's type depends on the turn that it is in. The turn begins in the prompt's tail. A
        function of the user's may read the whole row."""
        rows = self.rows.long()
        if typing.classify is not None:
            own = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask != 0
            exists = torch.cat([self.mask[rows], own], dim=1)
            whole = torch.cat([self.ids[rows], ids], dim=1)
            return typing(whole, exists)[:, self.ids.shape[1] :]
        if self._tail is None:
            starts = self.ids == typing.tokens.turn_start
            columns = torch.arange(self.ids.shape[1], device=self.ids.device)
            first = int(torch.where(starts, columns, -1).amax(dim=1).min())
            self._tail = self.ids[rows, max(first, 0) :]
        length = self._tail.shape[1]
        types = typing(torch.cat([self._tail, ids], dim=1), None)[:, length:]
        return types if mask is None else types.masked_fill(mask == 0, -1)

    def keep(self, chosen: Tensor) -> "SharedPrompts":
        """The prompts of the rows with these (R',) indices, without those that have no row left."""
        rows = self.rows[chosen].long()
        used, index = rows.unique(return_inverse=True)
        if len(used) == len(self.ids):
            return SharedPrompts(self.ids, self.mask, self.layers, index.int())
        start = int(self.mask[used].int().argmax(dim=1).min())
        layers = {i: (k[used, :, start:], v[used, :, start:]) for i, (k, v) in self.layers.items()}
        return SharedPrompts(self.ids[used, start:], self.mask[used, start:], layers, index.int())

    def join(self, others: "SharedPrompts") -> "SharedPrompts":
        """These prompts and others, whose rows follow."""
        length = max(self.ids.shape[1], others.ids.shape[1])

        def both(x: Tensor, y: Tensor, dim: int = 1) -> Tensor:
            return torch.cat([widened(x, length, dim), widened(y, length, dim)])

        layers = {
            i: (both(k, others.layers[i][0], 2), both(v, others.layers[i][1], 2))
            for i, (k, v) in self.layers.items()
        }
        rows = torch.cat([self.rows, others.rows + len(self.ids)])
        return SharedPrompts(both(self.ids, others.ids), both(self.mask, others.mask), layers, rows)


def widened(x: Tensor, length: int, dim: int = 1) -> Tensor:
    """Pads a dimension with zeros on the left, up to a length."""
    missing = length - x.shape[dim]
    padding = (0, 0) * (x.dim() - 1 - dim) + (missing, 0)
    return torch.nn.functional.pad(x, padding) if missing else x


def set_prompts(cache: Cache, prompts: SharedPrompts) -> None:
    """Makes the rows of a cache continue prompts: its keys are then those behind the prompts."""
    setattr(cache, _PROMPTS_OF_CACHE, prompts)


def prompts_of(cache: object) -> SharedPrompts | None:
    """The prompts that a cache's rows continue; None for other caches."""
    return getattr(cache, _PROMPTS_OF_CACHE, None)


def set_call(cache: Cache, call: AttnCall) -> None:
    """Makes the forwards with a cache read this call, and derive none of their own."""
    setattr(cache, _CALL_OF_CACHE, call)


def call_of(cache: object) -> AttnCall | None:
    """The call that the forwards with a cache read; None for other caches."""
    return getattr(cache, _CALL_OF_CACHE, None)
