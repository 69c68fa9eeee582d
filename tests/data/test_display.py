"""Pixels are those that a viewer shows: of every format, mode and orientation."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from avar_fast.data import RowError, parse_row
from avar_fast.data.images import image_size, open_image

from .samples import encoder

ORIENTATION = 0x0112


def picture(width=6, height=4):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image, orientation):
    """What the sensor saw of an image that is to be shown upright: the rotation undone."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return image if orientation == 1 else image.transpose(undo[orientation])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "PIL"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_sizes(kind, orientation):
    """A photograph was seen lying on its side: 21 % right where upright ones gave 96 %."""
    whole = picture()
    stored = turned(whole, orientation)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if kind == "PIL":
        reference = stored
        reference.getexif()[ORIENTATION] = orientation
    else:
        lossless = {"lossless": True} if kind == "WEBP" else {}
        reference = encoded(stored, kind, exif=exif, **lossless)
    shown = open_image(reference, "row 1")
    assert shown.size == image_size(reference, "row 1") == whole.size
    far = np.abs(np.asarray(shown).astype(int) - np.asarray(whole)).max()
    assert far == 0 or kind == "JPEG"
    if kind == "JPEG":  # its blocks are coded differently when turned
        plain = np.asarray(open_image(encoded(stored, "JPEG"), "row 1"))
        same = turned_back(Image.fromarray(plain), orientation)
        assert np.array_equal(np.asarray(shown), np.asarray(same))


def turned_back(image, orientation):
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def test_orientation_behind_the_pixels_of_a_png_counts():
    """exiftool writes it there; the header alone does not tell."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(picture(), "PNG", exif=exif)
    at = data.index(b"eXIf") - 4
    length = int.from_bytes(data[at : at + 4], "big") + 12
    chunk, rest = data[at : at + length], data[:at] + data[at + length :]
    end = rest.index(b"IEND") - 4
    moved = rest[:end] + chunk + rest[end:]
    assert image_size(moved, "row 1") == open_image(moved, "row 1").size == (4, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_garbage_in_place_of_exif_data_is_no_error():
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*garbage")
    assert image_size(data, "row 1") == open_image(data, "row 1").size == (6, 4)


def ink(mode):
    """A black stroke on nothing, whose hidden color is black too."""
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 0, 255))
    if mode == "P":
        palette = Image.new("P", (4, 2), 0)
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.putpixel((1, 1), 1)
        palette.info["transparency"] = 0
        return palette
    if mode in ("L", "RGB", "I;16"):  # one value is transparent
        values = np.full((2, 4, 3)[: 3 if mode == "RGB" else 2], 7, np.uint8)
        values[1, 1] = 0
        made = Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values)
        made.info["transparency"] = (7, 7, 7) if mode == "RGB" else 7
        return made
    return image.convert(mode) if mode != "La" else image.convert("LA").convert("La")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "P", "L", "RGB", "I;16"])
def test_transparency_is_laid_on_white(mode):
    """Black ink on transparent paper became all black."""
    shown = np.asarray(open_image(ink(mode), "row 1"))
    assert shown[1, 1].tolist() == [0, 0, 0]
    shown = shown.copy()
    shown[1, 1] = 255
    assert (shown == 255).all()


@pytest.mark.parametrize(("kind", "mode"), [("GIF", "P"), ("PNG", "P"), ("PNG", "I;16")])
def test_transparency_of_files(kind, mode):
    image = ink(mode)
    data = encoded(image, kind, transparency=image.info["transparency"])
    shown = np.asarray(open_image(data, "row 1"))
    assert (shown[0, 0].tolist(), shown[1, 1].tolist()) == ([255] * 3, [0] * 3)
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert open_image(encoded(half, "PNG"), "row 1").getpixel((0, 0)) == (127, 127, 127)


def ramp(dtype, most):
    return np.linspace(0, most, 256).round(6).astype(dtype)[None]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (ramp(np.uint16, 65535), "PNG"),
        (ramp(np.uint16, 65535), "TIFF"),
        (ramp(np.uint16, 65535), "PIL"),
        (ramp(np.int32, 65535), "TIFF"),
        (ramp(np.int32, 255), "PIL"),
        (ramp(np.float32, 1.0), "TIFF"),
        (ramp(np.float32, 255.0), "PIL"),
        (ramp(np.float32, 65535.0), "TIFF"),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{x.dtype}-{x.max():g}",
)
def test_deep_images_keep_their_grays(values, kind):
    """Pillow cut 16-bit values at 255: 72 % right where 96 % were."""
    image = Image.fromarray(values)
    shown = open_image(image if kind == "PIL" else encoded(image, kind), "row 1")
    assert np.array_equal(np.asarray(shown), np.repeat(np.arange(256)[None, :, None], 3, axis=2))


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 0), (16, 1)])
def test_gray_tiffs_say_what_is_white(bits, photometric):
    """12-bit scans were almost black, and where 0 is white everything was inverted."""
    top = 2**bits - 1
    values = np.linspace(0, top, 256).round().astype("<u2")
    stored = values if photometric else top - values
    pixels = stored.astype("<u2").tobytes()
    if bits == 12:
        pairs = stored.reshape(-1, 2).astype(int)
        pixels = b"".join(int(one << 12 | two).to_bytes(3, "big") for one, two in pairs)
    start = 8 + 2 + 9 * 12 + 4
    tags = [(256, 256), (257, 1), (258, bits), (259, 1), (262, photometric), (273, start)]
    tags += [(277, 1), (278, 1), (279, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II" + struct.pack("<HIH", 42, 8, len(tags))
    data = head + entries + bytes(4) + pixels
    shown = np.asarray(open_image(data, "row 1"))[0, :, 0].astype(int)
    assert np.abs(shown - np.arange(256)).max() <= 1


@pytest.mark.parametrize("value", [-1.0, 70000.0, float("nan"), float("inf")])
def test_values_without_a_known_white_are_an_error(value):
    image = Image.fromarray(np.array([[0.5, value]], np.float32))
    with pytest.raises(RowError, match=r"row 1: image .* cannot be read; its F pixels run from"):
        open_image(encoded(image, "TIFF"), "row 1")


def test_color_spaces_and_first_frames():
    cmyk = Image.new("CMYK", (2, 2), (0, 0, 0, 255))
    assert open_image(encoded(cmyk, "TIFF"), "row 1").getpixel((0, 0)) == (0, 0, 0)
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(gif, "row 1").getpixel((0, 0)) == (255, 0, 0)


def test_a_sample_is_that_of_the_image_as_shown():
    """Through the encoder: tokens and pixels of a turned, half transparent file are those of the
    plain image, and so is what measuring says."""
    image = picture(84, 28).convert("RGBA")
    image.putalpha(128)
    white = Image.new("RGBA", image.size, "white")
    plain = Image.alpha_composite(white, image).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    odd = encoded(turned(image, 6), "PNG", exif=exif)
    encode = encoder()

    def row(data):
        record = {"problem": "<image>?", "images": [data], "answer": "1"}
        return parse_row(record, "row 1", Path())

    want, got = encode(row(encoded(plain, "PNG"))), encode(row(odd))
    assert got.image_grid_thw.tolist() == want.image_grid_thw.tolist() == [[1, 2, 6]]
    assert (got.pixel_values == want.pixel_values).all()
    assert encode.measure(row(odd)) == encode.measure(row(odd), decode=True)
    assert encode.measure(row(odd)).prompt == len(got.prompt_ids)
    assert got.image_sizes == ((84, 28),)
