"""Reads the answer and the reasoning of a record as text, without the tags around them."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .problems import bad_row, shown

_TAG = re.compile(r"</?(?:answer|think)>", re.IGNORECASE)
_WHOLE = {
    tag: re.compile(rf"\s*<{tag}>(.*)</{tag}>\s*", re.DOTALL | re.IGNORECASE)
    for tag in ("answer", "think")
}
LARGEST_EXACT = 2.0**53  # larger floats cannot represent every integer
_KINDS = "be text, a number, or a list of accepted answers of these"


def read_answers(record: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads a record's ``answer``: one answer, or a list of accepted answers.

    All answers of a list are right; the first one is trained. <answer> tags around an answer are
    removed once.

    Returns:
        The accepted answers, and notes about changes.

    Raises:
        RowError: an answer is not text or a number, is empty, or has tags inside.
    """
    value = record.get("answer")
    if value is None:
        return (), ()
    if not isinstance(value, list | tuple):
        text, note = _bare(_as_text(value, where, "answer"), "answer", where, "answer")
        return (text,), note
    if not value:
        raise bad_row(where, "answer", _KINDS, "got an empty list")
    pairs = [
        _bare(_as_text(item, where, f"answer[{i}]"), "answer", where, f"answer[{i}]")
        for i, item in enumerate(value)
    ]
    notes = dict.fromkeys(note for _, item_notes in pairs for note in item_notes)
    return tuple(dict.fromkeys(text for text, _ in pairs)), tuple(notes)


def read_reasoning(record: Mapping[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    """Reads a record's ``reasoning``. <think> tags around it are removed once.

    Returns:
        The text, empty if there is none, and notes about changes.

    Raises:
        RowError: the reasoning is not text, or has tags inside.
    """
    reasoning = record.get("reasoning")
    if reasoning is None or (isinstance(reasoning, str) and not reasoning.strip()):
        return "", ()
    if not isinstance(reasoning, str):
        raise bad_row(where, "reasoning", "be text", f"got {shown(reasoning)}")
    require_unicode(reasoning, where, "reasoning")
    return _bare(reasoning, "think", where, "reasoning", strip=False)


def require_unicode(text: str, where: str, field: str) -> None:
    """Raises RowError if the text has half of a surrogate pair, which JSON allows but tokenizers
    reject."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"it holds {text[error.start]!r}, half of a surrogate pair, at {error.start}"
        remedy = "Write the whole character, or take it out."
        raise bad_row(where, field, "be text that UTF-8 can hold", half, remedy) from None


def _as_text(value: Any, where: str, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        remedy = 'Write what a model should say, as text: "yes" rather than true.'
        raise bad_row(where, field, _KINDS, f"got {shown(value)}", remedy)
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise bad_row(where, field, "be a finite number or text", f"got {value}")
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_EXACT:
        value = int(value)  # a column with missing values stores 3 as 3.0
    text = str(value)
    require_unicode(text, where, field)
    if _is_blank(text):
        remedy = "Give one, or leave the field out."
        raise bad_row(where, field, "not be empty", f"got {shown(value)}", remedy)
    return text


def _is_blank(text: str) -> bool:
    """Whether a text has no visible characters. Zero-width spaces are not visible."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def _bare(
    text: str, tag: str, where: str, field: str, strip: bool = True
) -> tuple[str, tuple[str, ...]]:
    """The text without the tag around it, and a note if the tag was removed."""
    note: tuple[str, ...] = ()
    whole = _WHOLE[tag].fullmatch(text)
    if whole is not None:
        text = whole[1].strip() if strip else whole[1]
        note = (f"<{tag}> tags around {field.partition('[')[0]} taken off",)
    if _TAG.search(text) or _is_blank(text):
        got = f"got {shown(text)}" if not _is_blank(text) else "it is empty between its tags"
        remedy = f"Give it alone; the trainer writes the <{tag}> tags around it."
        raise bad_row(where, field, "hold no <answer> or <think> tags of its own", got, remedy)
    return text, note
