"""The interface that attention uses when ranks share the tokens of a row."""

from typing import Protocol

from torch import Tensor


class SequenceSplit(Protocol):
    """A split of a row's tokens among ranks; train/sequence_parallel.py implements it."""

    size: int
    """Ranks that share a row."""

    def split(self, rows: Tensor, dim: int, fill: float = 0) -> Tensor:
        """This rank's part of the tokens along ``dim``."""
        ...

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> tuple[Tensor, ...]:
        """This rank's tokens of all heads -> all ``length`` tokens of this rank's heads."""
        ...

    def to_tokens(self, out: Tensor) -> Tensor:
        """All tokens of this rank's heads -> this rank's tokens of all heads."""
        ...
