"""The schemas rows come in, told apart by their columns.

    messages    messages (role, content), images | image, answer, reasoning
    sharegpt    conversations (from, value), images | image, system, answer, reasoning
    problem     problem | question, images | image, answer, reasoning (geometry3k)

Content is text with ``<image>`` marks, or a list of text and image parts. In text a backslash
before a mark makes it plain text; text parts have no marks.
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
# What other trainers' rows leave a turn untrained with: ms-swift's, TRL's and OpenAI's.
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
    """One way to write a row."""

    name: str
    columns: str
    """What it is known by, for messages."""
    fits: Callable[[Mapping[str, Any]], bool]
    turns: Callable[[Mapping[str, Any], str], list[Turn]]
    """record, where -> turns whose content is a list of parts; image parts may hold an image."""


def schema_of(record: Any, where: str) -> Schema:
    """The schema whose columns a record has.

    Raises:
        RowError: none fits (the columns found are listed), or the row holds video.
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
    found = ", ".join(map(str, record)) or "none"
    remedy = f"Known: {known}. Rename the columns to one of these."
    raise bad_row(where, "the columns", "be those of a known schema", f"got {found}", remedy)


def with_marks_escaped(text: str) -> str:
    """A text as a string content has it, in which the marks it speaks of stay text."""
    return re.sub(r"<(?:image|video)>", r"\\\g<0>", text)


def _refuse_video(where: str, field: str) -> None:
    remedy = (
        "Video is not supported; give its frames as images, or leave the row out. Where the text"
        " speaks of the mark itself, write \\<video>."
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
    """``trained: False`` for a turn that says it is not to be trained.

    Raises:
        RowError: the turn says something beside its content, which would be dropped.
    """
    for name in BESIDE_CONTENT:
        if message.get(name):
            remedy = "Write thoughts into the content, in <think> tags, or take the field out."
            got = f"it has {name}"
            raise bad_row(where, "a turn", "say all in its content", got, remedy)
    flags = (message.get(name) for name in TRAIN_FLAGS)
    return {"trained": False} if any(flag is not None and not flag for flag in flags) else {}


def _problem(record: Mapping[str, Any], where: str) -> list[Turn]:
    field = "problem" if "problem" in record else "question"
    return [{"role": "user", "content": _parts(record[field], where, field)}]


def _parts(content: Any, where: str, field: str = "content") -> list[dict[str, Any]]:
    """Text split at its ``<image>`` marks, or a list of parts, as a list of checked parts."""
    if isinstance(content, str):
        if len(_VIDEO_MARK.findall(content)) > content.count("</video>"):  # closed, it is HTML
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
    sized = [name for name in PIXEL_FIELDS if part.get(name) is not None] if kind else []
    if sized:
        remedy = "Take it out and set data.max_pixels or data.min_pixels, which hold for all rows."
        raise bad_row(where, field, "not size single images", f"got {', '.join(sized)}", remedy)
    if kind == "image":  # the image itself in the part, as Qwen's own examples have it
        held = [part[key] for key in ("image", "path", "url", "bytes") if part.get(key) is not None]
        return {"type": "image"} | ({"image": held[0]} if held else {})
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
