"""Real handwritten digits as image tiles.

Source: the 1797 scanned 8 x 8 digits (gray values 0..16) that scikit-learn ships as `load_digits`.
They are divided once and for all into a training part and a held-out part, digit by digit, so no
handwriting of a test image was ever seen in training. A tile is 28 x 28 pixels: with patches of 14
and a 2 x 2 merge it becomes exactly one visual token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

TILE_PX = 28
SOURCE_PX = 8
SOURCE_MAX = 16.0
HELD_OUT_SHARE = 0.2
# Written size of a digit in its tile when nothing varies: 8 source pixels at 3 pixels each.
PLAIN_SIZE_PX = 24.0
# The division into parts belongs to the world, not to a run: it never changes with a user's seed.
SPLIT_SEED = 20_260_303

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DigitPart:
    """One part of the handwritten digits.

    `by_value[v]` holds the positions of the pictures that show the digit v in the arrays of
    `sklearn.datasets.load_digits`.
    """

    by_value: tuple[np.ndarray, ...]

    def draw(self, value: int, rng: np.random.Generator) -> int:
        """Choose one picture of the digit `value`; returns its position in load_digits."""
        pool = self.by_value[value]
        return int(pool[rng.integers(len(pool))])


@lru_cache(maxsize=1)
def _source() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images.astype(np.float32) / SOURCE_MAX, bunch.target


@lru_cache(maxsize=len(SPLITS))
def digit_part(split: str) -> DigitPart:
    """The pictures that images of `split` ("train" or "test") may be composed of."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}; got {split!r}. Use split='train'.")
    _, target = _source()
    rng = np.random.default_rng(SPLIT_SEED)
    parts = []
    for value in range(10):
        positions = rng.permutation(np.flatnonzero(target == value))
        num_held_out = round(len(positions) * HELD_OUT_SHARE)
        kept = positions[:num_held_out] if split == "test" else positions[num_held_out:]
        parts.append(np.sort(kept))
    return DigitPart(tuple(parts))


def draw_tile(picture: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draw one digit, white on black.

    Args:
        picture: position in load_digits.
        rng: None draws it upright in the middle; a generator varies size, slant, angle and place,
            which lets 1400 training pictures stand for many more.
    Returns:
        (TILE_PX, TILE_PX) uint8.
    """
    images, _ = _source()
    size_px, angle, slant, shift_x, shift_y = PLAIN_SIZE_PX, 0.0, 0.0, 0.0, 0.0
    if rng is not None:
        size_px = rng.uniform(20.0, 27.0)
        angle = math.radians(rng.uniform(-12.0, 12.0))
        slant = rng.uniform(-0.15, 0.15)
        shift_x, shift_y = rng.uniform(-2.0, 2.0, size=2)
    from PIL import Image

    # PIL maps target to source coordinates, hence the inverse of rotate * slant * scale.
    zoom = SOURCE_PX / size_px
    cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
    a, b, d, e = cos + slant * sin, sin, slant * cos - sin, cos
    mid, source_mid = TILE_PX / 2, SOURCE_PX / 2
    x0, y0 = mid + shift_x, mid + shift_y
    matrix = (a, b, source_mid - a * x0 - b * y0, d, e, source_mid - d * x0 - e * y0)
    # A frame of empty pixels keeps bicubic interpolation from cutting strokes at the border.
    pad = 2
    framed = np.pad(images[picture], pad)
    matrix = (a, b, matrix[2] + pad, d, e, matrix[5] + pad)
    tile = Image.fromarray(framed).transform(
        (TILE_PX, TILE_PX), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return (np.clip(np.asarray(tile), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def draw_grid(pictures: np.ndarray, rng: np.random.Generator | None = None) -> Image.Image:
    """Compose an RGB image from a grid of pictures.

    Args:
        pictures: (rows, cols) positions in load_digits.
        rng: as in `draw_tile`.
    Returns:
        RGB image of cols * TILE_PX by rows * TILE_PX pixels.
    """
    from PIL import Image

    lines = [np.concatenate([draw_tile(int(p), rng) for p in row], axis=1) for row in pictures]
    return Image.fromarray(np.concatenate(lines, axis=0)).convert("RGB")


def degraded(
    image: Image.Image, contrast: float, noise: float, rng: np.random.Generator
) -> Image.Image:
    """A gray image with less contrast and with noise.

    Args:
        image: RGB, all channels equal.
        contrast: factor on the gray values, above 0 and up to 1; 1 with no noise leaves the image
            as it is and draws no random numbers.
        noise: standard deviation of the normal noise added to each pixel, as a share of white.
        rng: of the noise.
    """
    if contrast == 1.0 and noise == 0.0:
        return image
    from PIL import Image

    gray = np.asarray(image)[..., 0] / 255.0 * contrast
    gray = gray + noise * rng.standard_normal(gray.shape)
    return Image.fromarray((np.clip(gray, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)).convert("RGB")


def check_degraded(contrast: float, noise: float) -> None:
    """Raises ValueError if `degraded` cannot have this contrast or noise."""
    if not 0.0 < contrast <= 1.0:
        raise ValueError(f"contrast must be above 0 and at most 1; got {contrast}. Use 1.")
    if not 0.0 <= noise < 1.0:
        raise ValueError(f"noise must be from 0 to below 1; got {noise}. Use 0.")
