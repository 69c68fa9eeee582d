"""Walks whose right responses come in two styles.

A response that transcribes writes down the board once and walks on what it wrote:
"A3B7C1D0;C1A3". One that looks back only walks, and reads each digit when it comes to its cell:
"C1A3". The question is the same, so a model trained on both may answer in either style, and the
style can be read off the response. A row of a transcript has it in `meta.transcript` as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .digits import SPLITS
from .walk import CELL_NAMES, Walk, WalkConfig, next_cell

END_OF_TRANSCRIPT = ";"

_CHAIN = f"(?:[{CELL_NAMES}][0-9])+"
_THOUGHTS = re.compile(
    f"<think>(?:(?P<transcript>{_CHAIN}){END_OF_TRANSCRIPT})?(?P<walk>{_CHAIN})</think>"
)


@dataclass(frozen=True, kw_only=True)
class StyledWalkConfig(WalkConfig):
    """What kind of walks a data set has, and in which style they are answered."""

    transcript: float = 0.5
    """Probability that a row's response writes down the board before it walks."""
    slip: float = 0.0
    """Probability that a transcript has one wrong digit, at a cell of the walk. Walk and answer of
    the row then follow the transcript: its answer may be wrong, and it may come to a cell again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("transcript", self.transcript), ("slip", self.slip)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"{name} must be a probability from 0 to 1; got {value}. Use 0 for none."
                )

    def draw(self, split: str, seed: int, index: int) -> Walk:
        """As for walks without styles, which have the same boards, images and questions."""
        walk = super().draw(split, seed, index)
        rng = np.random.default_rng([seed, SPLITS.index(split), index, 1])
        if rng.random() >= self.transcript:
            return walk
        written = walk.board.copy()
        if rng.random() < self.slip:
            cell = walk.cells[rng.integers(len(walk.cells))]
            written.flat[cell] = (written.flat[cell] + rng.integers(1, 10)) % 10
        cells = [walk.cells[0]]
        while len(cells) < self.steps:
            cells.append(next_cell(cells[-1], int(written.flat[cells[-1]]), written.size))
        return TranscribedWalk(
            image=walk.image,
            board=walk.board,
            pictures=walk.pictures,
            cells=tuple(cells),
            written=written,
        )


@dataclass(frozen=True, kw_only=True)
class TranscribedWalk(Walk):
    """One board with a walk on its transcript."""

    written: np.ndarray
    """(side, side) digits that the response writes down and walks on."""

    @property
    def digits(self) -> tuple[int, ...]:
        return tuple(int(self.written.flat[cell]) for cell in self.cells)

    def row(self, name: str, image_path: str) -> dict:
        row = super().row(name, image_path)
        transcript = "".join(pairs_of(self.written))
        row["reasoning"] = f"{transcript}{END_OF_TRANSCRIPT}{row['reasoning']}"
        row["meta"]["transcript"] = self.written.tolist()
        return row


@dataclass(frozen=True)
class StyledResponse:
    """What a response writes, cell by cell: pairs of a cell and its digit such as "A3"."""

    walk: tuple[str, ...]
    transcript: tuple[str, ...] | None
    """None if it looks back."""

    @property
    def follows_transcript(self) -> bool:
        """Whether the walk reads nothing but what the transcript says."""
        return self.transcript is not None and set(self.walk) <= set(self.transcript)


def read_response(completion: str) -> StyledResponse | None:
    """What a completion writes; None if its thoughts are no walk, with or without a transcript."""
    found = _THOUGHTS.match(completion)
    if found is None:
        return None
    transcript = found["transcript"]
    return StyledResponse(
        walk=_pairs(found["walk"]), transcript=None if transcript is None else _pairs(transcript)
    )


def _pairs(chain: str) -> tuple[str, ...]:
    return tuple(chain[start : start + 2] for start in range(0, len(chain), 2))


def looks_back(completion: str) -> bool:
    """Whether a completion reads each digit when it comes to its cell, without a transcript."""
    response = read_response(completion)
    return response is not None and response.transcript is None


def pairs_of(board: np.ndarray) -> tuple[str, ...]:
    """A right transcript of a board."""
    return tuple(f"{cell}{digit}" for cell, digit in zip(CELL_NAMES, board.ravel(), strict=False))
