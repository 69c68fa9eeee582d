"""Converts images to what a viewer shows: upright, on white where transparent, with eight bits."""

import numpy as np
from PIL import ExifTags, Image, ImageOps
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

SWAPPED = (5, 6, 7, 8)  # EXIF orientations that turn width into height
PNG_MARKS = (b"eXIf", b"Raw profile type", b"xmp")  # marks of chunks that may have an orientation
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
DEEP_WHITE = 65535.0  # largest 16-bit value


def as_shown(image: Image.Image) -> Image.Image:
    """Converts an image to the RGB image that a viewer shows.

    The EXIF orientation is applied, and transparent areas become white. 16-bit gray is scaled to 8
    bits. For 32-bit integers and floats, white is the smallest of 1 (floats only), 255 and 65535
    that is not below the largest value.

    Args:
        image: an image of any mode.

    Raises:
        ValueError: the image has negative values, values above 65535, or NaN.
    """
    upright = _upright(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _to_gray(upright, *_depth(image)).convert("RGB")
    if upright.has_transparency_data:
        if upright.mode == "La":  # Pillow cannot convert this mode to RGBA directly
            upright = upright.convert("LA")
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")


def is_as_shown(image: Image.Image) -> bool:
    """Whether a program that only decodes the image, without orientation and transparency, shows
    the same as ``as_shown``."""
    plain = image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data
    return plain and _orientation(image) == 1 and getattr(image, "n_frames", 1) == 1


def shown_size(image: Image.Image, encoded: bytes | None = None) -> tuple[int, int]:
    """(width, height) of ``as_shown``; reads the pixels only if the header is not enough.

    Args:
        image: an opened image.
        encoded: the bytes that it was opened from, if any.
    """
    if image.format == "PNG" and encoded and not any(mark in encoded for mark in PNG_MARKS):
        return image.size  # else Pillow decodes all pixels to search for chunks after them
    if image.format == "TIFF":  # some Pillow releases rotate it when opened, some when loaded
        return _upright(image).size
    width, height = image.size
    return (height, width) if _orientation(image) in SWAPPED else (width, height)


def within_pixels(
    image: Image.Image, min_pixels: int | None, max_pixels: int | None
) -> Image.Image:
    """The image enlarged or shrunk to between ``min_pixels`` and ``max_pixels`` pixels, with its
    aspect ratio kept."""
    width, height = image.size
    least, most = min_pixels or 1, max_pixels or max(width * height, min_pixels or 1)
    height, width = smart_resize(height, width, factor=1, min_pixels=least, max_pixels=most)
    size = width, height
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it is missing or unreadable, as viewers do."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parser raises many kinds of errors for damaged EXIF data
        return 1


def _depth(image: Image.Image) -> tuple[float | None, bool]:
    """The largest value if mode or tags give it, else None; and whether 0 is white."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or image.format == "PNG":
        bits = tags.get(TIFF_BITS, (16,))[0]
        return 2.0**bits - 1, tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
    return None, False


def _to_gray(image: Image.Image, white: float | None, zero_is_white: bool) -> Image.Image:
    """Converts 9 to 16-bit or 32-bit integers or floats to 8-bit gray; a transparent value (PNG's
    tRNS) becomes white."""
    values = np.asarray(image)
    share = values / (_white_of(image.mode, values) if white is None else white)
    shown = ((1 - share if zero_is_white else share) * 255.0).round().astype(np.uint8)
    shown[values == image.info.get("transparency")] = 255
    return Image.fromarray(shown)


def _white_of(mode: str, values: np.ndarray) -> float:
    """The value that is shown as white if the mode does not define it."""
    least, largest = float(values.min()), float(values.max())
    for white in (*((1.0,) if mode == "F" else ()), 255.0, DEEP_WHITE):
        if least >= 0 and largest <= white:
            return white
    raise ValueError(
        f"its {mode} pixels run from {least:g} to {largest:g}, and the value of white is not"
        " known: save it with 8 or 16 bits"
    )
