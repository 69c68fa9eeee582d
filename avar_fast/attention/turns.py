"""The order of tokens in a row, by which turns are found: which token comes before which.

In a plain row, tokens follow one another. In a packed row with shared prompts, the tokens of a
response follow those of its prompt, wherever in the row the prompt is.
"""

from typing import Protocol

import torch
from torch import Tensor


class TokenOrder(Protocol):
    """The order of the tokens of (B, L) rows."""

    def latest(self, marks: Tensor) -> Tensor:
        """(B, L) int64: the rank of the last true mark at or before each token, -1 if there is
        none. A token has a higher rank than all tokens that it follows."""
        ...

    def at(self, values: Tensor, ranks: Tensor) -> Tensor:
        """(B, L): the values at the tokens of these ranks, as ``latest`` gave them; any value
        where the rank is -1."""
        ...

    def earlier(self, marks: Tensor, by: int) -> Tensor:
        """(B, L) bool: the marks of the tokens that come ``by`` tokens before each token."""
        ...

    def later(self, marks: Tensor, by: int) -> Tensor:
        """(B, L) bool: the marks of the tokens that come ``by`` tokens after each token."""
        ...


class PlainOrder:
    """Rows whose tokens follow one another."""

    def latest(self, marks: Tensor) -> Tensor:
        position = torch.arange(marks.shape[1], device=marks.device)
        return torch.where(marks, position, -1).cummax(dim=1).values

    def at(self, values: Tensor, ranks: Tensor) -> Tensor:
        return values.gather(1, ranks.clamp(min=0))

    def earlier(self, marks: Tensor, by: int) -> Tensor:
        moved = torch.zeros_like(marks)
        moved[:, by:] = marks[:, : max(marks.shape[1] - by, 0)]
        return moved

    def later(self, marks: Tensor, by: int) -> Tensor:
        moved = torch.zeros_like(marks)
        moved[:, : max(marks.shape[1] - by, 0)] = marks[:, by:]
        return moved


class SharedOrder:
    """One packed row of sequences, some of which go on from another one, their prefix.

    A sequence begins with no turn open; one with a prefix begins with the turns of its prefix. The
    tokens after a prefix differ by sequence, so nothing of them is later than the prefix.

    Args:
        offsets: (N + 1,) offsets of the sequences.
        prefix_index: (N,) index of each sequence's prefix, -1 for none.
        length: L, the tokens of the row.
    """

    def __init__(self, offsets: Tensor, prefix_index: Tensor, length: int) -> None:
        self.length = length
        self.token = torch.arange(length, device=offsets.device)
        starts, ends = offsets[:-1].long(), offsets[1:].long()
        self.sequence = torch.searchsorted(ends, self.token, right=True)
        self.start = starts[self.sequence]
        prefix = prefix_index.long()[self.sequence]
        self.has_prefix = prefix >= 0
        prefix = prefix.clamp(min=0)
        self.prefix_start, self.prefix_end = starts[prefix], ends[prefix]

    def latest(self, marks: Tensor) -> Tensor:
        seen = torch.where(marks[0], self.token, -1).cummax(dim=0).values
        own = torch.where(seen >= self.start, seen, -1)
        last = (self.prefix_end - 1).clamp(min=0)
        begun = self.has_prefix & (self.prefix_end > self.prefix_start)
        of_prefix = torch.where(begun, own[last], -1)
        # Tokens behind a prefix rank above all tokens of prefixes, wherever those are in the row.
        ranked = own + self.has_prefix * self.length
        return torch.where(own >= 0, ranked, of_prefix)[None]

    def at(self, values: Tensor, ranks: Tensor) -> Tensor:
        return values.gather(1, ranks.clamp(min=0) % self.length)

    def earlier(self, marks: Tensor, by: int) -> Tensor:
        offset = self.token - self.start
        source = torch.where(offset >= by, self.token - by, self.prefix_end - (by - offset))
        exists = (offset >= by) | (self.has_prefix & (source >= self.prefix_start))
        return marks[:, source.clamp(min=0)] & exists

    def later(self, marks: Tensor, by: int) -> Tensor:
        source = (self.token + by).clamp(max=self.length - 1)
        same = (self.token + by < self.length) & (self.sequence[source] == self.sequence)
        return marks[:, source] & same
