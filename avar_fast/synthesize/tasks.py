"""Rows to write reasoning for: checked, keyed by content, with their images as a request takes
them."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..data import Row, RowError, Rows, load_rows
from ..data.display import is_as_shown, within_pixels
from ..data.images import open_image
from ..data.problems import RowProblem, bad_row
from ..rewards import Reference, extract_answer
from .recipe import RowsConfig

# What vision endpoints take; everything else is sent, and kept, as PNG.
MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class SynthesisTask:
    """One row to write reasoning for."""

    index: int
    where: str
    key: str
    """Of messages, answer and the images' bytes: finished steps are found again by it, wherever
    the row moves in the file."""
    question: str
    answer: str
    """The first reference, which the rows that come out train."""
    reference: Reference
    """What gates compare with: the answer, or the list of those accepted."""
    messages: list[dict[str, Any]]
    """As the row has them, content as parts."""
    image_sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels."""


@dataclass(frozen=True)
class ReadRows:
    """What a data set holds."""

    rows: Rows
    tasks: list[SynthesisTask]
    problems: list[tuple[int, RowProblem]]
    """Rows that cannot be used, and why."""
    duplicates: list[tuple[int, int]]
    """Rows that repeat an earlier one, and which."""


def read_tasks(data: RowsConfig) -> ReadRows:
    """Reads every row and image once, before a request is sent.

    Raises:
        RowError: with ``data.bad_rows: error``, the first row that cannot be used.
        ValueError, FileNotFoundError: a data set that cannot be opened.
    """
    rows = load_rows(data.path, data.split, data.limit, keep_bad_lines=data.bad_rows == "skip")
    tasks: list[SynthesisTask] = []
    problems: list[tuple[int, RowProblem]] = []
    duplicates: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    for index in range(len(rows)):
        try:
            task = _task(rows[index], index, data)
        except RowError as error:
            if data.bad_rows == "error":
                raise
            problems.append((index, error.problem))
            continue
        if task.key in seen:
            duplicates.append((index, seen[task.key]))
            continue
        seen[task.key] = index
        tasks.append(task)
    return ReadRows(rows, tasks, problems, duplicates)


def _task(row: Row, index: int, data: RowsConfig) -> SynthesisTask:
    users = [turn for turn in row.messages if turn["role"] == "user"]
    if len(users) != 1 or any(turn["role"] == "assistant" for turn in row.messages):
        got = f"got {len(users)} user turns"
        raise bad_row(row.where, "messages", "hold one question and no earlier answer", got)
    if not row.images:
        raise bad_row(row.where, "images", "hold an image to look at", "it holds none")
    question = _question(users[0]["content"], len(row.images))
    reference = row.reference if row.answers else extract_answer(row.target or "")
    if not reference:
        remedy = "Give the row an answer, or set data.bad_rows: skip."
        expected = "be there to check the reasoning against"
        raise bad_row(row.where, "answer", expected, "it is missing", remedy)
    digest = hashlib.sha256(json.dumps([row.messages, reference], sort_keys=True).encode())
    sizes = []
    for blob in read_images(row, data):
        digest.update(hashlib.sha256(blob.data).digest())
        sizes.append(blob.size)
    return SynthesisTask(
        index,
        row.where,
        digest.hexdigest()[:24],
        question,
        reference if isinstance(reference, str) else reference[0],
        reference,
        row.messages,
        tuple(sizes),
    )


def _question(parts: list[dict[str, Any]], num_images: int) -> str:
    """The text of the user turn; where there are several images, marks say which comes where."""
    pieces, seen = [], 0
    for part in parts:
        if part["type"] == "image":
            seen += 1
            pieces.append(f"[image {seen}]" if num_images > 1 else "")
        else:
            pieces.append(part["text"])
    return "".join(pieces).strip()


@dataclass(frozen=True)
class Blob:
    """An image as bytes in a format that endpoints take."""

    data: bytes
    format: str
    size: tuple[int, int]

    @property
    def uri(self) -> str:
        return f"data:{MIME[self.format]};base64,{base64.b64encode(self.data).decode()}"


def read_images(row: Row, limits: RowsConfig) -> Iterator[Blob]:
    """The images of a row as the trainer sees them: their own bytes where any program that decodes
    them sees the same, else as PNG.

    Raises:
        RowError: an image that does not decode.
    """
    for number, image in enumerate(row.images):
        shown = open_image(image, row.where, f"images[{number}]")
        shown = within_pixels(shown, limits.min_pixels, limits.max_pixels)
        data = image.read_bytes() if isinstance(image, Path) else image
        kind = _plain_format(data, shown.size) if isinstance(data, bytes) else None
        if not isinstance(data, bytes) or kind is None:
            buffer = io.BytesIO()
            shown.save(buffer, "PNG")
            data, kind = buffer.getvalue(), "PNG"
        yield Blob(data, kind, shown.size)


def _plain_format(data: bytes, size: tuple[int, int]) -> str | None:
    """The format, where endpoints take it and see the image in this size."""
    with Image.open(io.BytesIO(data)) as image:
        plain = image.format in MIME and image.size == size and is_as_shown(image)
        return image.format if plain else None
