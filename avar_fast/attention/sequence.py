"""What attention needs to know of rows whose tokens are shared among ranks."""

from typing import Protocol

from torch import Tensor


class SequenceSplit(Protocol):
    """How the tokens of a row are shared among ranks (train/sequence_parallel.py has it)."""

    size: int
    """Ranks that share a row."""

    def split(self, rows: Tensor, dim: int, fill: float = 0) -> Tensor:
        """This rank's stretch along ``dim``."""
        ...

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> tuple[Tensor, ...]:
        """Own stretch of all heads -> all ``length`` tokens of own heads."""
        ...

    def to_tokens(self, out: Tensor) -> Tensor:
        """All tokens of own heads -> own stretch of all heads."""
        ...
