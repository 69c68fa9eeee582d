"""Walks whose system turn holds a hint: a walk that was written down before.

    "... Hint: A3E7M0N9."                                 in the system turn, after its usual text

A right hint is the walk of this image: a model that copies it needs no image. A wrong hint starts
at the same cell of another board. What a model does with wrong hints shows whether it looks. The
row of such a walk has the hint in `meta.hint`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .digits import SPLITS
from .walk import Walk, WalkConfig, chain_of, draw_board
from .world import DEFAULT_SYSTEM


@dataclass(frozen=True, kw_only=True)
class HintedWalkConfig(WalkConfig):
    """What kind of walks a data set has, and how frequently their hints are right."""

    right: float = 0.0
    """Probability that the hint is right. 0 is for wrong hints only: one of another board may still
    have some of the walk's digits, or all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.right <= 1.0:
            raise ValueError(
                f"right must be a probability from 0 to 1; got {self.right}. Use 0 for wrong hints."
            )

    def draw(self, split: str, seed: int, index: int) -> HintedWalk:
        """As for walks without hints, which have the same boards, images and questions."""
        walk = super().draw(split, seed, index)
        rng = np.random.default_rng([seed, SPLITS.index(split), index, 2])
        hint = chain_of(walk.cells, walk.digits)
        if rng.random() >= self.right:
            board, cells = draw_board(self, rng, start=walk.cells[0])
            hint = chain_of(cells, board.flat[list(cells)])
        return HintedWalk(
            image=walk.image, board=walk.board, pictures=walk.pictures, cells=walk.cells, hint=hint
        )


@dataclass(frozen=True, kw_only=True)
class HintedWalk(Walk):
    """One board with a walk on it and a hint."""

    hint: str
    """Cells and digits, such as "A3E7M0N9"."""

    def row(self, name: str, image_path: str) -> dict:
        row = super().row(name, image_path)
        system = {"role": "system", "content": f"{DEFAULT_SYSTEM} Hint: {self.hint}."}
        row["messages"].insert(0, system)
        row["meta"]["hint"] = self.hint
        return row


def hint_digits(hint: str) -> list[int]:
    """The digits of a hint, one per step."""
    return [int(digit) for digit in hint[1::2]]
