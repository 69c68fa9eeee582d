"""Rows to write reasoning for. They are checked, have keys made from their content, and their
images are in a format for requests."""

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

# Formats that vision endpoints accept. Other images are sent, and saved, as PNG.
MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class SynthesisTask:
    """One row to write reasoning for."""

    index: int
    """Number of the row in the data set, from 0."""
    where: str
    """Data set and row, for error messages."""
    key: str
    """Digest of the messages, the answer and the images' bytes. Finished steps are found by it,
    even if the row moves within the file."""
    question: str
    answer: str
    """The first reference answer. It becomes the answer of the new row."""
    reference: Reference
    """The answer, or the list of accepted answers. The gates compare with it."""
    messages: list[dict[str, Any]]
    """Turns of the row, with content as parts."""
    image_sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels."""


@dataclass(frozen=True)
class ReadRows:
    """The contents of a data set."""

    rows: Rows
    """All rows."""
    tasks: list[SynthesisTask]
    """Usable rows."""
    problems: list[tuple[int, RowProblem]]
    """(index, problem) of rows that cannot be used."""
    duplicates: list[tuple[int, int]]
    """(index, index of the earlier row) of rows that repeat an earlier one."""


def read_tasks(data: RowsConfig) -> ReadRows:
    """Reads every row and image once, before a request is sent.

    Raises:
        RowError: a row cannot be used and ``data.bad_rows`` is ``error``.
        ValueError, FileNotFoundError: the data set cannot be opened.
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
    """The text of the user turn. If there are several images, marks such as [image 1] show their
    places."""
    pieces, number = [], 0
    for part in parts:
        if part["type"] == "image":
            number += 1
            pieces.append(f"[image {number}]" if num_images > 1 else "")
        else:
            pieces.append(part["text"])
    return "".join(pieces).strip()


@dataclass(frozen=True)
class Blob:
    """An encoded image in a format that endpoints accept."""

    data: bytes
    format: str
    """PNG, JPEG or WEBP."""
    size: tuple[int, int]
    """(width, height) in pixels."""

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return f"data:{MIME[self.format]};base64,{base64.b64encode(self.data).decode()}"


def read_images(row: Row, limits: RowsConfig) -> Iterator[Blob]:
    """Yields the images of a row as the trainer sees them. An image keeps its original bytes if
    every decoder shows it in the same way; otherwise it is encoded as PNG.

    Raises:
        RowError: an image cannot be decoded.
    """
    for number, image in enumerate(row.images):
        shown = open_image(image, row.where, f"images[{number}]")
        shown = within_pixels(shown, limits.min_pixels, limits.max_pixels)
        data = image.read_bytes() if isinstance(image, Path) else image
        format = _plain_format(data, shown.size) if isinstance(data, bytes) else None
        if not isinstance(data, bytes) or format is None:
            buffer = io.BytesIO()
            shown.save(buffer, "PNG")
            data, format = buffer.getvalue(), "PNG"
        yield Blob(data, format, shown.size)


def _plain_format(data: bytes, size: tuple[int, int]) -> str | None:
    """The format of an encoded image that can be sent as it is; None if its format is not accepted
    or it would be shown differently than in this size."""
    with Image.open(io.BytesIO(data)) as image:
        is_plain = image.format in MIME and image.size == size and is_as_shown(image)
        return image.format if is_plain else None
