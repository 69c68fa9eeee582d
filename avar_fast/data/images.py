"""Checks and opens the images of rows: path, bytes, data URI, ``{"bytes", "path"}`` or PIL."""

import base64
import binascii
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from .display import as_shown, shown_size
from .problems import MissingImageError, RowError, RowProblem, bad_row, shown

KINDS = 'a path, bytes, a data URI, {"bytes": ..., "path": ...} or a PIL image'


def image_reference(image: Any, where: str, field: str, folder: Path) -> Any:
    """Checks an image and returns the reference that ``open_image`` takes: a Path, bytes or a PIL
    image. Nothing is decoded.

    Raises:
        MissingImageError: the path does not exist.
        RowError: it is a web address, a data URI that is not base64, or not an image at all.
    """
    if isinstance(image, dict) and (image.get("bytes") is not None or image.get("path")):
        image = image["bytes"] if image.get("bytes") is not None else image["path"]
    if isinstance(image, bytes | Image.Image):
        return image
    if not isinstance(image, str) or not image:
        raise bad_row(where, field, f"be {KINDS}", f"got {type(image).__name__} {shown(image)}")
    if image.startswith(("http://", "https://")):
        remedy = "Download the images first and give their paths; training reads no network."
        raise bad_row(where, field, "be a local file", f"got the address {shown(image)}", remedy)
    if image[:5].lower() == "data:":
        return _from_data_uri(image, where, field)
    path = folder / (unquote(image[len("file://") :]) if image.startswith("file://") else image)
    try:
        exists = path.is_file()
    except OSError as error:  # for example, base64 without "data:" is too long for a file name
        raise bad_row(where, field, f"be {KINDS}", f"{error.strerror}: {shown(image)}") from None
    if not exists:
        raise MissingImageError(
            RowProblem(
                where,
                field,
                "be an existing file",
                f"image {shown_path(path)} does not exist",
                "A path is relative to the folder of the rows.",
                form="{where}: {got}.",
            )
        )
    return path


def shown_path(path: Path, most: int = 300) -> str:
    """A path for a message, cut if it is very long."""
    text = str(path)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _from_data_uri(image: str, where: str, field: str) -> bytes:
    head, _, body = image.partition(",")
    if not head.endswith(";base64"):
        raise bad_row(where, field, "be a base64 data URI", f"got {shown(head)}")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error as error:
        raise bad_row(where, field, "be a base64 data URI", f"{error}") from None


def open_image(image: Any, where: str, field: str = "image") -> Image.Image:
    """Decodes an image to the RGB image that a viewer shows (``as_shown``).

    Raises:
        RowError: the image cannot be read.
    """
    try:
        return as_shown(_opened(image))
    except Exception as error:  # PIL's decoders raise many kinds of errors for a broken file
        raise _unreadable(image, where, field, error) from None


def image_size(image: Any, where: str, field: str = "image") -> tuple[int, int]:
    """(width, height) of ``open_image``'s result, read from the header alone if that is enough.

    Raises:
        RowError: the image cannot be read.
    """
    try:
        if isinstance(image, Path):
            image = image.read_bytes()
        encoded = image if isinstance(image, bytes) else None
        return shown_size(_opened(image), encoded)
    except Exception as error:  # as above, including SyntaxError and DecompressionBombError
        raise _unreadable(image, where, field, error) from None


def _opened(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    # Read the whole file: it is small compared with the decoded image, and no file stays open.
    return Image.open(io.BytesIO(image.read_bytes() if isinstance(image, Path) else image))


def _unreadable(image: Any, where: str, field: str, error: Exception) -> RowError:
    name = str(image) if isinstance(image, Path) else f"of {type(image).__name__}"
    got = f"image {name} cannot be read; {str(error) or type(error).__name__}"
    return RowError(RowProblem(where, field, "be a whole image", got, form="{where}: {got}."))
