"""A rule-based writer of the lab's three VARD steps. It reads digits by comparing them with the
known pictures, adds them up, and rephrases.

The writer sees the request alone, as a model would. A digit that it misreads becomes a wrong
answer, which the gates of a synthesis must catch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .digits import SPLITS, TILE_PX, digit_part, draw_tile

if TYPE_CHECKING:
    from PIL import Image

WORDS = tuple(
    re.findall(
        r" ?[A-Za-z]+",
        "I am asked for the sum of.The question is about: its digits must be added.What counts here"
        " is alone. According to the description, holds and. So.Let me check this against the"
        " description: reads, as I had it. Added the other way round. The result stands. Looking at"
        " the image, I see that. In the image I can see that by looking again at the image, at and"
        " look back at the image",
    )
)
"""The words of its chains and rewritten chains, with their leading blanks."""


class CannotWriteError(ValueError):
    """A request that the rules do not cover."""


def write(model: str, text: str, images: list[Image.Image], seed: int) -> str:
    """The answer of `model`, one of ``MODELS``, to a request.

    Args:
        text: of the user turn.
        images: of the user turn.
        seed: chooses among wordings.
    """
    if model not in MODELS:
        raise CannotWriteError(f"model must be one of {', '.join(MODELS)}; got {model!r}.")
    return MODELS[model](text, images, random.Random(f"{seed} {text}"))


def read_digits(image: Image.Image) -> np.ndarray:
    """The digits of a grid, (rows, cols), each that of the nearest known picture."""
    pixels = np.asarray(image.convert("L"), dtype=np.float32)
    rows, cols = pixels.shape[0] // TILE_PX, pixels.shape[1] // TILE_PX
    if rows == 0 or cols == 0:
        raise CannotWriteError(
            f"the image must be a grid of {TILE_PX} x {TILE_PX} tiles; got {image.size}."
        )
    tiles = pixels[: rows * TILE_PX, : cols * TILE_PX]
    tiles = tiles.reshape(rows, TILE_PX, cols, TILE_PX).swapaxes(1, 2).reshape(rows * cols, -1)
    pictures, values = _known()
    # |a - b|^2 less |a|^2, which is the same for every picture.
    distance = (pictures**2).sum(axis=1) - 2.0 * tiles @ pictures.T
    return values[distance.argmin(axis=1)].reshape(rows, cols)


@lru_cache(maxsize=1)
def _known() -> tuple[np.ndarray, np.ndarray]:
    """All handwritten digits as tiles, (n, TILE_PX^2), and their values, (n,)."""
    tiles, values = [], []
    for split in SPLITS:
        for value, positions in enumerate(digit_part(split).by_value):
            tiles += [draw_tile(int(position)).reshape(-1) for position in positions]
            values += [value] * len(positions)
    return np.array(tiles, dtype=np.float32), np.array(values)


def _describe(text: str, images: list[Image.Image], rng: random.Random) -> str:
    if len(images) != 1:
        raise CannotWriteError(f"a description takes one image; got {len(images)}.")
    digits = read_digits(images[0])
    rows, cols = digits.shape
    lines = [f"row {at + 1}: {' '.join(map(str, row))}" for at, row in enumerate(digits)]
    return "\n".join(
        [
            f"A grid of handwritten digits, white on black, {rows} rows by {cols} columns.",
            "From the left to the right, from the top to the bottom:",
            *lines,
        ]
    )


def _reason(text: str, images: list[Image.Image], rng: random.Random) -> str:
    asked = re.search(r"Add (row|column) (\d+)", text)
    rows = [list(map(int, row.split())) for row in re.findall(r"row \d+: ([\d ]+)", text)]
    if asked is None or not rows:
        raise CannotWriteError("the question must ask to add a row or column of a described grid.")
    kind, at = asked[1], int(asked[2]) - 1
    line = rows[at] if kind == "row" else [row[at] for row in rows]
    total, name = sum(line), f"{kind} {at + 1}"
    listed = " and ".join(map(str, line))
    added = f"{' + '.join(map(str, line))} = {total}"
    backwards = f"{' + '.join(map(str, reversed(line)))} = {total}"
    start = rng.choice(
        (
            f"I am asked for the sum of {name}.",
            f"The question is about {name}: its digits must be added.",
            f"What counts here is {name} alone.",
        )
    )
    return "\n".join(
        [
            f"{start} According to the description, {name} holds {listed}. So {added}.",
            f"Let me check this against the description: {name} reads {listed}, as I had it. Added"
            f" the other way round, {backwards}. The result stands.",
            f"<answer>{total}</answer>",
        ]
    )


def _rewrite(text: str, images: list[Image.Image], rng: random.Random) -> str:
    found = re.search(r"<reasoning>\s*(.*?)\s*</reasoning>", text, re.DOTALL)
    line = re.search(r"(?:row|column) \d+", text)
    if found is None or line is None:
        raise CannotWriteError("the request must hold <reasoning> about a row or column.")
    seen = rng.choice(("Looking at the image, I see that", "In the image I can see that"))
    again = rng.choice(("by looking again at the image", "and look back at the image"))
    reasoning = found[1].replace("According to the description,", f"{seen}")
    return reasoning.replace("against the description", f"{again}, at {line[0]}")


MODELS: dict[str, Callable[[str, list[Image.Image], random.Random], str]] = {
    "lab-describe": _describe,
    "lab-reason": _reason,
    "lab-rewrite": _rewrite,
}
