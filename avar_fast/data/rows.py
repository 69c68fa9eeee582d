"""Rows as data sets have them: messages with image references, an answer, optional reasoning."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

IMAGE_MARK = "<image>"


@dataclass(frozen=True)
class Row:
    """One checked row."""

    where: str
    """File (or data set) and row number, for messages."""
    messages: list[dict[str, Any]]
    """Turns whose content is a list of {"type": "image"} and {"type": "text", "text": ...}
    parts."""
    images: list[Any]
    """Paths or PIL images, in the order of the image parts."""
    target: str | None
    """What the assistant should say."""
    answer: str | None


class Rows(Sequence[Row]):
    """The rows of a data set, checked one by one as they are read."""

    def __init__(self, records: Any, source: str, folder: Path) -> None:
        self._records, self._source, self._folder = records, source, folder

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Row:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return parse_row(self._records[index], f"{self._source} row {index + 1}", self._folder)

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def load_rows(path: str, split: str = "train", limit: int | None = None) -> Rows:
    """Opens a .jsonl or .json file, parquet, or a hub data set.

    Raises:
        FileNotFoundError: a path that looks like a file and does not exist.
        ValueError: no rows, or text that is not JSON (file and line named).
    """
    file = Path(path)
    if file.suffix in (".jsonl", ".json"):
        if not file.is_file():
            raise FileNotFoundError(f"data.path must be an existing file; {file} is not.")
        records = _read_json(file)
        folder = file.parent
    else:
        records, folder = _load_dataset(path, split), file.parent
    if limit is not None:
        records = (
            records[:limit]
            if isinstance(records, list)
            else records.select(range(min(limit, len(records))))
        )
    if len(records) == 0:
        raise ValueError(f"data.path must hold at least one row; {path} holds none.")
    return Rows(records, path, folder)


def _read_json(file: Path) -> list[Any]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} must be valid JSON; {error}.") from None
        if not isinstance(records, list):
            raise ValueError(
                f"{file} must hold a JSON list of rows; got {type(records).__name__}. Write one"
                " object per line into a .jsonl file, or wrap them in [ ]."
            )
        return records
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{file} line {number} must be one JSON object; {error}."
                ) from None
    return records


def _load_dataset(path: str, split: str) -> Any:
    import datasets

    if Path(path).exists():
        files = str(path) if Path(path).is_file() else str(Path(path) / "*.parquet")
        rows = datasets.load_dataset("parquet", data_files=files, split="train")
    else:
        rows = datasets.load_dataset(path, split=split)
    assert isinstance(rows, datasets.Dataset)
    return rows


def parse_row(record: dict[str, Any], where: str, folder: Path) -> Row:
    """Checks one record and brings it into the form of ``Row``.

    A record has ``messages`` (role and content; content is text with ``<image>`` marks, or a list
    of parts), ``images`` (paths relative to the file, or images), and either a final assistant
    message or ``answer`` with optional ``reasoning``, from which the target is composed as
    ``<think>reasoning</think><answer>answer</answer>``.

    Raises:
        ValueError: a missing or malformed field, or a number of image marks that is not that of the
        images.
        FileNotFoundError: an image file that does not exist.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a row must be a JSON object; got {type(record).__name__}.")
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where}: messages must be a non-empty list of turns; got {messages!r}.")
    images = [_image_reference(image, where, folder) for image in record.get("images") or []]
    turns = [_parse_message(message, where) for message in messages]
    answer, reasoning = record.get("answer"), record.get("reasoning")
    answer = None if answer is None else str(answer)

    if turns[-1]["role"] == "assistant":
        target = "".join(part.get("text", "") for part in turns.pop()["content"])
    elif answer is not None:
        thought = f"<think>{reasoning}</think>" if reasoning else ""
        target = f"{thought}<answer>{answer}</answer>"
    else:
        target = None
    if not turns or turns[-1]["role"] != "user":
        raise ValueError(
            f"{where}: messages must end with a user turn, or a user turn and its answer."
        )
    marks = sum(part["type"] == "image" for turn in turns for part in turn["content"])
    if marks != len(images):
        raise ValueError(
            f"{where}: messages must hold one {IMAGE_MARK} per image; got {marks} for {len(images)}"
            " images."
        )
    return Row(where, turns, images, target, answer)


def _parse_message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
        raise ValueError(
            f"{where}: a message must have role system, user or assistant; got {message!r}."
        )
    content = message.get("content")
    if isinstance(content, str):
        parts: list[dict[str, Any]] = []
        for i, text in enumerate(content.split(IMAGE_MARK)):
            if i:
                parts.append({"type": "image"})
            if text:
                parts.append({"type": "text", "text": text})
    elif isinstance(content, list) and all(_is_part(part) for part in content):
        parts = [
            {"type": "image"} if p["type"] == "image" else {"type": "text", "text": p["text"]}
            for p in content
        ]
    else:
        raise ValueError(
            f"{where}: content must be text or a list of image and text parts, a text part with its"
            f" text; got {content!r}."
        )
    return {"role": message["role"], "content": parts}


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return part.get("type") == "image" or (
        part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _image_reference(image: Any, where: str, folder: Path) -> Any:
    if isinstance(image, str):
        path = folder / image
        if not path.is_file():
            raise FileNotFoundError(f"{where}: image {path} does not exist.")
        return path
    if isinstance(image, Image.Image):
        return image
    raise ValueError(
        f"{where}: an image must be a path or a PIL image; got {type(image).__name__}."
    )


def open_image(image: Any, where: str) -> Image.Image:
    """The decoded RGB image; errors name the row."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except OSError as error:
        raise ValueError(f"{where}: image {image} cannot be read; {error}.") from None
