"""The known schemas of records, which are recognized by their columns.

    messages    messages (role, content), images | image, answer, reasoning
    sharegpt    conversations (from, value), images | image, system, answer, reasoning
    problem     problem | question, images | image, answer, reasoning (geometry3k)

Content is text with ``<image>`` marks, or a list of text and image parts. In text, a backslash
before a mark makes it plain text. Text parts have no marks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .problems import bad_row, shown

IMAGE_MARK = "<image>"
_MARK = re.compile(r"(?<!\\)<image>")
_VIDEO_MARK = re.compile(r"(?<!\\)<video>")
_ESCAPED = re.compile(r"\\(<(?:image|video)>)")
# Flags that exclude a turn from training in the formats of ms-swift, TRL and OpenAI.
TRAIN_FLAGS = ("loss", "train", "weight")
BESIDE_CONTENT = ("reasoning_content", "reasoning", "thinking", "tool_calls")
PIXEL_FIELDS = ("min_pixels", "max_pixels", "resized_height", "resized_width")
ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SHAREGPT_ROLES["system"] = "system"
VIDEO_COLUMNS = ("videos", "video")
Turn = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """A format of records."""

    name: str
    columns: str
    """The columns that identify it, for messages."""
    fits: Callable[[Mapping[str, Any]], bool]
    """Whether a record has this schema."""
    turns: Callable[[Mapping[str, Any], str], list[Turn]]
    """(record, where) -> turns whose content is a list of parts; image parts may hold an image."""


def schema_of(record: Any, where: str) -> Schema:
    """The schema that fits a record's columns.

    Raises:
        RowError: no schema fits (the message lists the columns), or the record has video.
    """
    if not isinstance(record, Mapping):
        raise bad_row(where, "a row", "be a JSON object", f"got {type(record).__name__}")
    for column in VIDEO_COLUMNS:
        if record.get(column):
            _refuse_video(where, column)
    for schema in SCHEMAS:
        if schema.fits(record):
            return schema
    known = "; ".join(f"{schema.name} ({schema.columns})" for schema in SCHEMAS)
    columns = ", ".join(map(str, record)) or "none"
    remedy = f"Known: {known}. Rename the columns to one of these."
    raise bad_row(where, "the columns", "be those of a known schema", f"got {columns}", remedy)


def with_marks_escaped(text: str) -> str:
    """Escapes image and video marks in a text, so that they stay text in a string content."""
    return re.sub(r"<(?:image|video)>", r"\\\g<0>", text)


def _refuse_video(where: str, field: str) -> None:
    remedy = (
        "Video is not supported; give its frames as images, or leave the row out. If the text"
        " means the mark itself, write \\<video>."
    )
    raise bad_row(where, field, "hold no video", "it does", remedy)


def _messages(record: Mapping[str, Any], where: str) -> list[Turn]:
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        got = f"got {shown(messages)}"
        raise bad_row(where, "messages", "be a non-empty list of turns", got)
    turns = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            got = f"got {shown(message)}"
            raise bad_row(where, "a message", "have role system, user or assistant", got)
        turn = {"role": message["role"], "content": _parts(message.get("content"), where)}
        turns.append(turn | _flag(message, where))
    return turns


def _sharegpt(record: Mapping[str, Any], where: str) -> list[Turn]:
    conversations = record["conversations"]
    if not isinstance(conversations, list) or not conversations:
        got = f"got {shown(conversations)}"
        raise bad_row(where, "conversations", "be a non-empty list of turns", got)
    turns = []
    if record.get("system"):
        turns.append({"role": "system", "content": _parts(record["system"], where)})
    for turn in conversations:
        role = SHAREGPT_ROLES.get(str(turn.get("from"))) if isinstance(turn, Mapping) else None
        if role is None:
            expected = f"have from one of {', '.join(SHAREGPT_ROLES)}"
            raise bad_row(where, "a turn of conversations", expected, f"got {shown(turn)}")
        content = _parts(turn.get("value"), where, "value")
        turns.append({"role": role, "content": content} | _flag(turn, where))
    return turns


def _flag(message: Mapping[str, Any], where: str) -> dict[str, bool]:
    """{"trained": False} for a turn whose flags exclude it from training, else an empty dict.

    Raises:
        RowError: the turn has text outside its content, which would be lost.
    """
    for name in BESIDE_CONTENT:
        if message.get(name):
            remedy = "Write thoughts into the content, in <think> tags, or remove the field."
            got = f"it has {name}"
            raise bad_row(where, "a turn", "have all its text in its content", got, remedy)
    flags = (message.get(name) for name in TRAIN_FLAGS)
    return {"trained": False} if any(flag is not None and not flag for flag in flags) else {}


def _problem(record: Mapping[str, Any], where: str) -> list[Turn]:
    field = "problem" if "problem" in record else "question"
    return [{"role": "user", "content": _parts(record[field], where, field)}]


def _parts(content: Any, where: str, field: str = "content") -> list[dict[str, Any]]:
    """Content as a list of checked parts: splits text at its ``<image>`` marks."""
    if isinstance(content, str):
        if len(_VIDEO_MARK.findall(content)) > content.count("</video>"):  # closed: HTML
            _refuse_video(where, field)
        parts: list[dict[str, Any]] = []
        for i, text in enumerate(_MARK.split(content)):
            if i:
                parts.append({"type": "image"})
            if text:
                parts.append({"type": "text", "text": _ESCAPED.sub(r"\1", text)})
        return parts
    if isinstance(content, list):
        return [_part(part, where, field, content) for part in content]
    raise _bad_content(where, field, content)


def _part(part: Any, where: str, field: str, content: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "video":
        _refuse_video(where, field)
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    size_fields = [name for name in PIXEL_FIELDS if part.get(name) is not None] if kind else []
    if size_fields:
        remedy = "Remove it and set data.max_pixels or data.min_pixels, which apply to all rows."
        got = f"got {', '.join(size_fields)}"
        raise bad_row(where, field, "not set the size of single images", got, remedy)
    if kind == "image":  # the part may hold the image itself, as in Qwen's examples
        keys = ("image", "path", "url", "bytes")
        images = [part[key] for key in keys if part.get(key) is not None]
        return {"type": "image"} | ({"image": images[0]} if images else {})
    if kind == "image_url":  # the form of OpenAI's API
        url = part.get("image_url")
        return {"type": "image", "image": url.get("url") if isinstance(url, Mapping) else url}
    raise _bad_content(where, field, content)


def _bad_content(where: str, field: str, content: Any) -> ValueError:
    expected = "be text or a list of image and text parts, a text part with its text"
    return bad_row(where, field, expected, f"got {shown(content)}")


SCHEMAS = (
    Schema("messages", "messages", lambda r: "messages" in r, _messages),
    Schema("sharegpt", "conversations", lambda r: "conversations" in r, _sharegpt),
    Schema(
        "problem",
        "problem or question, and answer",
        lambda r: ("problem" in r or "question" in r) and "answer" in r,
        _problem,
    ),
)
