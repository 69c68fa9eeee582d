"""Questions about grids of handwritten digits, as rows in the schema of real data sets.

A row of the JSONL file:

    {"id": "train-0-000017",
     "messages": [{"role": "user", "content": "<image>Add row 2. Think first."}],
     "images": ["images/train-0-000017.png"],          relative to the file
     "answer": "7",
     "reasoning": "3 + 4 = 7",                         chain style only
     "meta": {"style": "chain", "digits": [[..]], "pictures": [[..]], "line": "row 2", "hint":
     null}}

There is no assistant turn: the data pipeline composes the target from `reasoning` and `answer`. The
question names the style, so accuracy can be measured per style. Open questions do not name it.

The shortcut: with `shortcut = rho > 0` every training question carries a hint. The hint is right
with probability rho, else it is a random wrong sum. In a test the hint is drawn without regard to
the image, wrong or left out, unless the test asks for hints as in training. A model that reads the
hint instead of the image does well in training and fails the test: lazy attention in miniature. The
hint stands before the question, or at the end of the system turn, which the row then has:

    {"role": "system", "content": "You are a helpful assistant. Hint: 7."}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .digits import SPLITS, check_degraded, degraded, digit_part, draw_grid

if TYPE_CHECKING:
    from PIL import Image

STYLES = ("direct", "chain")
STYLE_CHOICES = ("mixed", *STYLES)
STYLE_REQUEST = {"direct": "Answer at once.", "chain": "Think first."}
TEST_HINTS = ("random", "wrong", "absent", "training")
HINT_PLACES = ("user", "system")
DEFAULT_SYSTEM = "You are a helpful assistant."
MAX_SIDE = 8


class Drawing(Protocol):
    """One question with its image."""

    @property
    def image(self) -> Image.Image: ...

    def row(self, name: str, image_path: str) -> dict:
        """The JSON object whose image lies at `image_path` beside the JSONL file."""
        ...


class World(Protocol):
    """An endless stream of questions for every split and seed."""

    def draw(self, split: str, seed: int, index: int) -> Drawing: ...


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What kind of samples a world produces."""

    rows: int = 2
    """Digits from top to bottom, 1 to 8."""
    cols: int = 2
    """Digits from left to right, 1 to 8."""
    smaller: bool = False
    """Draw each side from 1 up to `rows` or `cols` for every sample. Single digits teach reading
    and grids teach where to look: a base model learns both several times sooner from the
        mixture."""
    style: str = "mixed"
    """"direct", "chain", or "mixed": either with probability one half."""
    open: bool = False
    """The question does not say which style is wanted: a model may answer in either."""
    shortcut: float = 0.0
    """Probability that the hint in a training question is right; 0 leaves hints out."""
    test_hint: str = "random"
    """With a shortcut, what test questions carry: a "random" hint, a "wrong" one, none ("absent"),
    or one as in "training"."""
    hint_place: str = "user"
    """The turn in which hints stand: "user" or "system"."""
    contrast: float = 1.0
    """Factor on the gray values, above 0 and up to 1."""
    noise: float = 0.0
    """Standard deviation of the normal noise added to each pixel, as a share of white."""
    vary: bool = True
    """Vary size, slant, angle and place of training digits. Test digits are drawn plainly."""

    def __post_init__(self) -> None:
        for name, side in (("rows", self.rows), ("cols", self.cols)):
            if not 1 <= side <= MAX_SIDE:
                raise ValueError(
                    f"{name} must be from 1 to {MAX_SIDE}; got {side}. Use the default, 2."
                )
        if self.style not in STYLE_CHOICES:
            raise ValueError(
                f"style must be one of {STYLE_CHOICES}; got {self.style!r}. Use 'mixed'."
            )
        if not 0.0 <= self.shortcut <= 1.0:
            raise ValueError(
                f"shortcut must be a probability from 0 to 1; got {self.shortcut}. "
                "Use 0 for a world without hints."
            )
        if self.test_hint not in TEST_HINTS:
            raise ValueError(
                f"test_hint must be one of {TEST_HINTS}; got {self.test_hint!r}. Use 'random'."
            )
        if self.hint_place not in HINT_PLACES:
            raise ValueError(
                f"hint_place must be one of {HINT_PLACES}; got {self.hint_place!r}. Use 'user'."
            )
        check_degraded(self.contrast, self.noise)

    def draw(self, split: str, seed: int, index: int) -> Scene:
        """As `make_scene`."""
        return make_scene(self, split, seed, index)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One question with its image and everything needed to check the answer."""

    image: Image.Image
    question: str
    answer: str
    reasoning: str | None
    style: str
    digits: np.ndarray  # (rows, cols) values
    pictures: np.ndarray  # (rows, cols) positions in load_digits
    line: str  # "row 1", "column 2", ... counted from one
    hint: int | None
    system: str | None
    """Text of the system turn, if it has a hint."""

    def row(self, name: str, image_path: str) -> dict:
        """As `to_row`."""
        return to_row(self, name, image_path)


def make_scene(config: WorldConfig, split: str, seed: int, index: int) -> Scene:
    """Sample number `index` of the endless stream that `split` and `seed` name.

    Each sample has a random stream of its own, so the first thousand of a data set of ten thousand
    are the data set of one thousand.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}; got {split!r}. Use split='train'.")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    style = STYLES[rng.integers(2)] if config.style == "mixed" else config.style
    rows, cols = config.rows, config.cols
    if config.smaller:
        rows, cols = (int(rng.integers(1, side + 1)) for side in (rows, cols))
    digits = rng.integers(10, size=(rows, cols))
    part = digit_part(split)
    pictures = np.array([[part.draw(int(value), rng) for value in row] for row in digits])
    line, addends = _choose_line(digits, rng)
    total = int(addends.sum())
    hint = _choose_hint(config, split, total, len(addends), rng)
    question = f"Add {line}."
    if not config.open:
        question += f" {STYLE_REQUEST[style]}"
    system = None
    if hint is not None and config.hint_place == "system":
        system = f"{DEFAULT_SYSTEM} Hint: {hint}."
    elif hint is not None:
        question = f"Hint: {hint}. {question}"
    reasoning = f"{' + '.join(map(str, addends))} = {total}" if style == "chain" else None
    image = draw_grid(pictures, rng if config.vary and split == "train" else None)
    # A stream of its own, so that the noise does not depend on the hint.
    of_noise = np.random.default_rng([seed, SPLITS.index(split), index, 1])
    image = degraded(image, config.contrast, config.noise, of_noise)
    return Scene(
        image=image,
        question=question,
        answer=str(total),
        reasoning=reasoning,
        style=style,
        digits=digits,
        pictures=pictures,
        line=line,
        hint=hint,
        system=system,
    )


def _choose_line(digits: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    rows, cols = digits.shape
    at = int(rng.integers(rows + cols))
    if at < rows:
        return f"row {at + 1}", digits[at]
    return f"column {at - rows + 1}", digits[:, at - rows]


def _choose_hint(
    config: WorldConfig, split: str, total: int, num_addends: int, rng: np.random.Generator
) -> int | None:
    if config.shortcut == 0.0 or (split == "test" and config.test_hint == "absent"):
        return None
    # Sums of fresh digits: a random hint then has the distribution of true sums, so its size alone
    # does not give it away.
    fresh = int(rng.integers(10, size=num_addends).sum())
    if split == "test" and config.test_hint == "random":
        return fresh
    wrong = split == "test" and config.test_hint == "wrong"
    if not wrong and rng.random() < config.shortcut:
        return total
    while fresh == total:
        fresh = int(rng.integers(10, size=num_addends).sum())
    return fresh


def to_row(sample: Scene, name: str, image_path: str) -> dict:
    """The JSON object of a sample whose image lies at `image_path` beside the JSONL file."""
    messages = [{"role": "user", "content": f"<image>{sample.question}"}]
    if sample.system is not None:
        messages.insert(0, {"role": "system", "content": sample.system})
    row = {
        "id": name,
        "messages": messages,
        "images": [image_path],
        "answer": sample.answer,
        "meta": {
            "style": sample.style,
            "digits": sample.digits.tolist(),
            "pictures": sample.pictures.tolist(),
            "line": sample.line,
            "hint": sample.hint,
        },
    }
    if sample.reasoning is not None:
        row["reasoning"] = sample.reasoning
    return row


def write_rows(out: Path, config: World, split: str, num_rows: int, seed: int) -> Path:
    """Write `out/<split>.jsonl` and its images under `out/images/`; returns the file's path.

    The same arguments write the same bytes. Another split may share the folder.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1; got {num_rows}. Use e.g. 2000.")
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}. Use e.g. 0.")
    (out / "images").mkdir(parents=True, exist_ok=True)
    path = out / f"{split}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for index in range(num_rows):
            sample = config.draw(split, seed, index)
            name = f"{split}-{seed}-{index:06d}"
            # Relative on purpose: the folder can be moved as one.
            image_path = f"images/{name}.png"
            sample.image.save(out / image_path, compress_level=1)
            file.write(json.dumps(sample.row(name, image_path)) + "\n")
    return path
