"""Recordings of the attention masses of an attached model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from .tokens import PLAIN, SpecialTokens, query_mask
from .turns import TokenOrder


@dataclass
class Recorded:
    """The attention masses of one forward."""

    mass: dict[int, Tensor] = field(default_factory=dict)
    """{layer: (B, L, H, C) float32}, differentiable. The columns are the key types: TEXT, VISUAL,
    SYSTEM, then those of ``attach(classify=)``. Layers are named by their index in the model; a
    recurrent layer has no masses. With a cache, L counts only the new tokens. With a split
    sequence, H counts only this rank's heads."""
    key_types: Tensor | None = None
    """(B, Lk) int32 types of all keys, which the masses are sums over. With a cache, Lk includes
    the cached keys. None before the first forward."""
    token_ids: Tensor | None = None
    """(B, Lk) int64 ids of all keys; -1 for an image token without a feature. None before the first
    forward."""
    num_queries: int = 0
    """L, the number of new tokens."""
    tokens: SpecialTokens | None = None
    """The ids of the model's special tokens."""
    order: TokenOrder = PLAIN
    """The order of the tokens in a row, in which turns are found."""

    def queries(self, role: str = "user") -> Tensor:
        """(B, L) bool: the new tokens with a role, as in ``query_mask``. Padding has none.

        Raises:
            RuntimeError: no forward was recorded.
            ValueError: the role is unknown.
        """
        if self.token_ids is None or self.key_types is None or self.tokens is None:
            raise RuntimeError("queries are those of a forward; none has run in record_attention.")
        real = self.key_types >= 0
        chosen = query_mask(self.token_ids, real, role=role, tokens=self.tokens, order=self.order)
        return chosen[:, -self.num_queries :]


@dataclass
class Recording(Recorded):
    """Attention masses of the latest forward inside ``record_attention``."""

    keep: Literal["last", "all"] | Callable[[Recorded], None] = "last"
    """What happens to earlier forwards: they are dropped, kept in ``forwards``, or each is handed
    to a function when it ends."""
    forwards: list[Recorded] = field(default_factory=list)
    """All forwards, the latest last; empty unless ``keep`` is "all"."""

    def begin(
        self,
        ids: Tensor,
        types: Tensor,
        num_queries: int,
        tokens: SpecialTokens,
        order: TokenOrder,
    ) -> None:
        """A forward begins: its masses go into a new ``mass``."""
        self.mass, self.token_ids, self.key_types = {}, ids, types
        self.num_queries, self.tokens, self.order = num_queries, tokens, order

    def end(self) -> None:
        """A forward has ended."""
        if self.keep == "last":
            return
        fields = (self.mass, self.key_types, self.token_ids, self.num_queries)
        done = Recorded(*fields, self.tokens, self.order)
        if self.keep == "all":
            self.forwards.append(done)
        else:
            self.keep(done)
