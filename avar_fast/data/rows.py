"""Reads rows: checks records of any known schema and converts them to one form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..missing import IN_RECIPE, RowNames
from .answers import read_answers, read_reasoning, require_unicode
from .images import image_reference
from .problems import bad_row
from .schemas import IMAGE_MARK, schema_of
from .sources import RowSource, open_source

NOT_COLUMNS = ("messages", "conversations", "images", "image")  # fields of Row hold their content


@dataclass(frozen=True)
class Row:
    """One checked row."""

    where: str
    """The file or data set, and the row's number, for messages."""
    messages: list[dict[str, Any]]
    """Turns whose content is a list of parts, {"type": "image"} or {"type": "text", "text": ...}.
    A turn with ``trained: False`` is not trained."""
    images: list[Any]
    """Undecoded images (paths, bytes or PIL images), in the order of the image parts."""
    target: str | None
    """The reply to train; None without one."""
    answers: tuple[str, ...] = ()
    """Reference answers, which are all right; the first one is trained."""
    schema: str = "messages"
    """Name of the record's schema."""
    columns: dict[str, Any] = field(default_factory=dict)
    """The record without turns and images, for reward functions."""
    notes: tuple[str, ...] = ()
    """Changes made to the record, for the report of the data check."""

    @property
    def answer(self) -> str | None:
        """The first reference answer."""
        return self.answers[0] if self.answers else None

    @property
    def reference(self) -> str | list[str] | None:
        """The reference for reward rules: the answer, or the list of accepted answers."""
        return list(self.answers) if len(self.answers) > 1 else self.answer


class Rows(Sequence[Row]):
    """The rows of a data set. Each row is checked when it is read."""

    def __init__(self, source: RowSource, limit: int | None = None) -> None:
        self.source = source
        self._length = len(source) if limit is None else min(limit, len(source))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return parse_row(self.source[index], self.source.where(index), self.source.folder)

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def columns(self) -> list[str]:
        """The columns of the first record that can be read."""
        for index in range(len(self)):
            try:
                return [str(column) for column in self.source[index]]
            except ValueError:
                continue
        return []


def load_rows(
    path: str,
    split: str = "train",
    limit: int | None = None,
    *,
    keep_bad_lines: bool = False,
    names: RowNames = IN_RECIPE,
) -> Rows:
    """Opens a .jsonl, .json or .parquet file, a folder of parquet files, a folder written by
    ``datasets`` (save_to_disk), or a hub data set.

    Args:
        path: path of the file or folder, or the hub name.
        split: the split to read, if the data set has several.
        limit: read only this many first rows; None reads all.
        keep_bad_lines: a line of a .jsonl file that is not JSON raises an error only when its row
            is read.
        names: what the user calls path and split, for messages.

    Raises:
        FileNotFoundError: the path looks like a file and does not exist.
        ValueError: there are no rows, or the text is not JSON (the message names file and line).
    """
    rows = Rows(open_source(path, split, keep_bad_lines, names), limit)
    if len(rows) == 0:
        raise ValueError(f"{names.path} must hold at least one row; {path} holds none.")
    return rows


def parse_row(record: Any, where: str, folder: Path) -> Row:
    """Checks one record of any known schema and converts it to a ``Row``.

    A record has turns, and images in a column (``images`` or ``image``) or in its parts. It ends
    with an assistant turn, or has an ``answer`` and optionally ``reasoning``, which make the target
    ``<think>reasoning</think><answer>answer</answer>``.

    Raises:
        RowError: a field is missing or malformed, an answer is not text, the numbers of image marks
            and images differ, or there is video.
        MissingImageError: an image file does not exist (also a FileNotFoundError).
    """
    schema = schema_of(record, where)
    turns = schema.turns(record, where)
    for turn in turns:
        for part in turn["content"]:
            require_unicode(part.get("text", ""), where, f"the {turn['role']} turn")
        texts = (part.get("text", "x") for part in turn["content"])
        if turn["role"] == "assistant" and not any(text.strip() for text in texts):
            raise bad_row(where, "an assistant turn", "say something", "it is empty")
    answers, answer_notes = read_answers(record, where)
    reasoning, reasoning_notes = read_reasoning(record, where)
    target = None
    if turns[-1]["role"] == "assistant":
        if not turns[-1].get("trained", True):
            remedy = "Take the turn out, or its flag."
            expected = "be trained, as the last of the row"
            raise bad_row(where, "the last assistant turn", expected, "its flag says no", remedy)
        target = _reply_text(turns.pop()["content"], where)
    elif answers:
        thought = f"<think>{reasoning}</think>" if reasoning else ""
        target = f"{thought}<answer>{answers[0]}</answer>"
    if not turns or turns[-1]["role"] != "user":
        roles = ", ".join(turn["role"] for turn in turns) or "no turn before the answer"
        raise bad_row(
            where, "messages", "end with a user turn, or a user turn and its answer", f"got {roles}"
        )
    images = _images(record, turns, where, folder)
    plain = [
        turn | {"content": [_without_image(part) for part in turn["content"]]} for turn in turns
    ]
    columns = {name: value for name, value in record.items() if name not in NOT_COLUMNS}
    notes = answer_notes + reasoning_notes
    return Row(where, plain, images, target, answers, schema.name, columns, notes)


def _reply_text(content: list[dict[str, Any]], where: str) -> str:
    """The text of the last assistant turn."""
    if any(part["type"] == "image" for part in content):
        remedy = f"Take {IMAGE_MARK} out of the last assistant turn, or write \\{IMAGE_MARK}."
        raise bad_row(where, "the answer", "be text", "it holds an image", remedy)
    return "".join(part["text"] for part in content)


def _images(
    record: dict[str, Any], turns: list[dict[str, Any]], where: str, folder: Path
) -> list[Any]:
    """The images of a row, one per image part, from its column or from the parts themselves."""
    parts = [part for turn in turns for part in turn["content"] if part["type"] == "image"]
    column = "images" if record.get("images") else "image"
    images = record.get(column) or []
    if not isinstance(images, list):
        images = [images]
    part_images = [part["image"] for part in parts if "image" in part]
    if not images and len(part_images) == len(parts):
        images, column = part_images, "image part"
    if len(parts) != len(images):
        got = f"got {len(parts)} for {len(images)} images"
        remedy = f"If the text means the mark itself, write \\{IMAGE_MARK}."
        raise bad_row(where, "messages", f"hold one {IMAGE_MARK} per image", got, remedy)
    return [
        image_reference(image, where, f"{column}[{i}]", folder) for i, image in enumerate(images)
    ]


def _without_image(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image" else part
