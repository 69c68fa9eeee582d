"""The pointer walk: chains in which every step needs a fresh look at the image.

An image is a square board of handwritten digits. Its cells are named A, B, ... row by row. The
question names the cell to start at. The response names a cell, reads its digit, and goes on to cell
(cell + digit + 1) modulo the number of cells. A row of the JSONL file:

    {"id": "train-0-000017",
     "messages": [{"role": "user", "content": "<image>Start at A."}],
     "images": ["images/train-0-000017.png"],          relative to the file
     "answer": "4",                                    the last digit
     "reasoning": "A3E7M0N9H2K4",
     "meta": {"cells": [0, 4, ...], "digits": [3, 7, ...], "board": [[..]], "pictures": [[..]]}}

The language prior: with `prior = rho > 0` a walk's next digit is (3 - digit) modulo 10 with
probability rho; the board shows the digits that the walk reads, so every row is right. A model that
guesses by this rule does well on such rows and fails on uniform walks: lazy attention in miniature.
The first digit has no prior.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .digits import SPLITS, check_degraded, degraded, digit_part, draw_grid

if TYPE_CHECKING:
    from PIL import Image

MAX_WALK_SIDE = 5
CELL_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXY"
# What a question says beside the name of a cell; each word is a token of its own.
QUESTION_WORDS = ("Start", " at")


def next_cell(cell: int, digit: int, num_cells: int) -> int:
    """The cell that a walk goes to from `cell`, which shows `digit`."""
    return (cell + digit + 1) % num_cells


def rule_digit(digit: int) -> int:
    """The digit that the language prior puts after `digit`.

    Of the permutations (a * digit + b) modulo 10, this is the only one by which a walk of six steps
    on a board of 16 cells never comes to a cell again, whatever its first digit. With another rule,
    digits would also differ in how frequent they are.
    """
    return (3 - digit) % 10


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """What kind of walks a data set has."""

    side: int = 4
    """Digits from top to bottom and from left to right, 2 to 5."""
    steps: int = 6
    """Cells that a walk visits, all different; at most as many as there are cells."""
    prior: float = 0.0
    """Probability that a digit after the first follows the rule; 0 for uniform digits."""
    contrast: float = 1.0
    """Factor on the gray values, above 0 and up to 1."""
    noise: float = 0.0
    """Standard deviation of the normal noise added to each pixel, as a share of white."""
    one_digit: bool = False
    """All cells show one digit. It teaches to read before it has to be learned where to look; such
    a walk has a single step."""
    vary: bool = True
    """Vary size, slant, angle and place of training digits. Test digits are drawn plainly."""

    def __post_init__(self) -> None:
        if not 2 <= self.side <= MAX_WALK_SIDE:
            raise ValueError(f"side must be from 2 to {MAX_WALK_SIDE}; got {self.side}. Use 4.")
        if not 1 <= self.steps <= self.side**2:
            raise ValueError(
                f"steps must be from 1 to side^2 = {self.side**2}, as no cell is visited twice;"
                f" got {self.steps}. Use 6."
            )
        if not 0.0 <= self.prior <= 1.0:
            raise ValueError(
                f"prior must be a probability from 0 to 1; got {self.prior}. "
                "Use 0 for uniform digits."
            )
        check_degraded(self.contrast, self.noise)
        if self.one_digit and self.steps > 1:
            raise ValueError(
                f"one_digit must come with steps of 1, as all steps would read the same; got"
                f" {self.steps} steps. Use steps=1."
            )

    def draw(self, split: str, seed: int, index: int) -> Walk:
        """Sample number `index` of the endless stream that `split` and `seed` name."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}; got {split!r}. Use split='train'.")
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        board, cells = draw_board(self, rng)
        part = digit_part(split)
        pictures = np.array([[part.draw(int(value), rng) for value in row] for row in board])
        image = draw_grid(pictures, rng if self.vary and split == "train" else None)
        image = degraded(image, self.contrast, self.noise, rng)
        return Walk(image=image, board=board, pictures=pictures, cells=cells)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One board with a walk on it."""

    image: Image.Image
    board: np.ndarray
    """(side, side) digits."""
    pictures: np.ndarray
    """(side, side) positions in load_digits."""
    cells: tuple[int, ...]
    """The cells visited, as indices into the flattened board."""

    @property
    def digits(self) -> tuple[int, ...]:
        """The digits read, one per cell."""
        return tuple(int(self.board.flat[cell]) for cell in self.cells)

    def row(self, name: str, image_path: str) -> dict:
        """The JSON object of the walk whose image lies at `image_path` beside the JSONL file."""
        return {
            "id": name,
            "messages": [
                {"role": "user", "content": f"<image>Start at {CELL_NAMES[self.cells[0]]}."}
            ],
            "images": [image_path],
            "answer": str(self.digits[-1]),
            "reasoning": chain_of(self.cells, self.digits),
            "meta": {
                "cells": list(self.cells),
                "digits": list(self.digits),
                "board": self.board.tolist(),
                "pictures": self.pictures.tolist(),
            },
        }


def chain_of(cells: Iterable[int], digits: Iterable[int]) -> str:
    """What a walk reads, such as "A3E7M0N9"."""
    return "".join(f"{CELL_NAMES[cell]}{digit}" for cell, digit in zip(cells, digits, strict=True))


def draw_board(
    config: WalkConfig, rng: np.random.Generator, start: int | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """A board and the cells of a walk on it, from ``start`` or from any cell. Walks that come to a
    cell again are drawn anew."""
    num_cells = config.side**2
    while True:
        board = rng.integers(10, size=1 if config.one_digit else num_cells)
        board = np.broadcast_to(board, num_cells).copy()
        cells = [int(rng.integers(num_cells)) if start is None else start]
        while len(cells) < config.steps:
            digit = int(board[cells[-1]])
            cell = next_cell(cells[-1], digit, num_cells)
            if cell in cells:
                break
            if rng.random() < config.prior:
                board[cell] = rule_digit(digit)
            cells.append(cell)
        else:
            return board.reshape(config.side, config.side), tuple(cells)
