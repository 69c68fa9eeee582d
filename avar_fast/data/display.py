"""Images as a viewer shows them: orientation applied, transparency laid on white, eight bits."""

import numpy as np
from PIL import ExifTags, Image, ImageOps
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

SWAPPED = (5, 6, 7, 8)  # EXIF orientations that turn width into height
PNG_MARKS = (b"eXIf", b"Raw profile type", b"xmp")  # of chunks that can tell an orientation
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
DEEP_WHITE = 65535.0  # of 16 bits


def as_shown(image: Image.Image) -> Image.Image:
    """The RGB image that a viewer shows.

    EXIF orientation is applied and transparency laid on white. 16-bit gray is scaled to 8 bits.
    32-bit integers and floats do not say what is white: 1 (floats alone), 255 or 65535, the least
    of these that is not below the largest value.

    Args:
        image: loaded, of any mode.

    Raises:
        ValueError: negative values, larger ones, or NaN.
    """
    upright = _upright(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _grey(upright, *_depth(image)).convert("RGB")
    if upright.has_transparency_data:
        if upright.mode == "La":  # the only mode that Pillow takes in two steps
            upright = upright.convert("LA")
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")


def is_as_shown(image: Image.Image) -> bool:
    """Whether any program that decodes the image and looks at nothing else shows the same."""
    plain = image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data
    return plain and _orientation(image) == 1 and getattr(image, "n_frames", 1) == 1


def shown_size(image: Image.Image, encoded: bytes | None = None) -> tuple[int, int]:
    """(width, height) of ``as_shown``; reads the pixels only where the header does not tell.

    Args:
        image: opened.
        encoded: the bytes it was opened from, if it was.
    """
    if image.format == "PNG" and encoded and not any(mark in encoded for mark in PNG_MARKS):
        return image.size  # Pillow would decode it all, for what may stand behind the pixels
    if image.format == "TIFF":  # some releases of Pillow turn it as they open it, some as they load
        return _upright(image).size
    width, height = image.size
    return (height, width) if _orientation(image) in SWAPPED else (width, height)


def within_pixels(
    image: Image.Image, min_pixels: int | None, max_pixels: int | None
) -> Image.Image:
    """The image in its own shape, enlarged or shrunk to have so many pixels."""
    width, height = image.size
    least, most = min_pixels or 1, max_pixels or max(width * height, min_pixels or 1)
    height, width = smart_resize(height, width, factor=1, min_pixels=least, max_pixels=most)
    size = width, height
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    """1 where there is none, or none that can be read: viewers show such an image as it is."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of garbage in place of EXIF data Pillow's parser stumbles in many ways
        return 1


def _depth(image: Image.Image) -> tuple[float | None, bool]:
    """The value that is white, where mode or tags tell, and whether 0 is white instead."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or image.format == "PNG":
        bits = tags.get(TIFF_BITS, (16,))[0]
        return 2.0**bits - 1, tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
    return None, False


def _grey(image: Image.Image, white: float | None, zero_is_white: bool) -> Image.Image:
    """8-bit gray of 9 to 16-bit or 32-bit integers or floats; a transparent value (PNG's tRNS)
    becomes white."""
    values = np.asarray(image)
    share = values / (_white_of(image.mode, values) if white is None else white)
    shown = ((1 - share if zero_is_white else share) * 255.0).round().astype(np.uint8)
    shown[values == image.info.get("transparency")] = 255
    return Image.fromarray(shown)


def _white_of(mode: str, values: np.ndarray) -> float:
    """The value that is shown as white, where the mode does not tell."""
    least, largest = float(values.min()), float(values.max())
    for white in (*((1.0,) if mode == "F" else ()), 255.0, DEEP_WHITE):
        if least >= 0 and largest <= white:
            return white
    raise ValueError(
        f"its {mode} pixels run from {least:g} to {largest:g}, and what is white among them"
        " is not known: save it with 8 or 16 bits"
    )
