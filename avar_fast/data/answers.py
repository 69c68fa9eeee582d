"""The answer and the reasoning of a record, as text: what they may be, and what is taken off."""

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
LARGEST_EXACT = 2.0**53  # beyond, floats skip integers
_KINDS = "be text, a number, or a list of accepted answers of these"


def read_answers(record: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(accepted answers, notes) of a record's ``answer``.

    A list holds accepted answers: any is right, the first is what is trained. <answer> tags around
    an answer are taken off once.

    Raises:
        RowError: an answer that is no text or number, is empty, or holds tags inside.
    """
    given = record.get("answer")
    if given is None:
        return (), ()
    if not isinstance(given, list | tuple):
        text, note = _bare(_as_text(given, where, "answer"), "answer", where, "answer")
        return (text,), note
    if not given:
        raise bad_row(where, "answer", _KINDS, "got an empty list")
    read = [
        _bare(_as_text(value, where, f"answer[{i}]"), "answer", where, f"answer[{i}]")
        for i, value in enumerate(given)
    ]
    notes = dict.fromkeys(note for _, found in read for note in found)
    return tuple(dict.fromkeys(text for text, _ in read)), tuple(notes)


def read_reasoning(record: Mapping[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    """(text, notes) of a record's ``reasoning``, empty where there is none; <think> tags around it
    are taken off once.

    Raises:
        RowError: reasoning that is no text, or holds tags inside.
    """
    given = record.get("reasoning")
    if given is None or (isinstance(given, str) and not given.strip()):
        return "", ()
    if not isinstance(given, str):
        raise bad_row(where, "reasoning", "be text", f"got {shown(given)}")
    require_unicode(given, where, "reasoning")
    return _bare(given, "think", where, "reasoning", strip=False)


def require_unicode(text: str, where: str, field: str) -> None:
    """Raises RowError for half of a surrogate pair, which JSON can hold and no tokenizer takes."""
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
        value = int(value)  # what a column of numbers with gaps makes of 3
    text = str(value)
    require_unicode(text, where, field)
    if _is_blank(text):
        remedy = "Give one, or leave the field out."
        raise bad_row(where, field, "not be empty", f"got {shown(value)}", remedy)
    return text


def _is_blank(text: str) -> bool:
    """Whether nothing of it is visible, spaces without width included."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def _bare(
    text: str, tag: str, where: str, field: str, strip: bool = True
) -> tuple[str, tuple[str, ...]]:
    """The text without the tag around it, and a note if there was one."""
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
