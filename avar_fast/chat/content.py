"""Extracts text from the content of a message: a string or a list of typed parts."""

from collections.abc import Iterator
from typing import Any

_TEXT = ("text", "output_text", "input_text", "text_delta")
_REASONING = ("reasoning", "reasoning_text", "thinking", "thinking_delta", "summary_text")
_NO_TEXT_NEEDED = ("redacted_thinking", "tool_use", "tool_call", "function_call")


class UnreadableContentError(Exception):
    """Content that is not text."""


def pieces_of(content: Any) -> Iterator[tuple[str, str]]:
    """Yields (kind, text) of every piece; kind is content, reasoning or refusal.

    Raises:
        UnreadableContentError: a part holds no text and would be lost.
    """
    if content is None:
        return
    if isinstance(content, str):
        yield "content", content
    elif isinstance(content, list):
        for part in content:
            yield from pieces_of(part)
    elif isinstance(content, dict):
        yield from _pieces_of_part(content)
    else:
        raise UnreadableContentError(f"content of type {type(content).__name__}")


def _pieces_of_part(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kind = part.get("type", "text")
    if kind in _NO_TEXT_NEEDED:
        return
    if isinstance(part.get("parts"), list):  # {"role": ..., "parts": [...]}, as Gemini nests them
        yield from pieces_of(part["parts"])
    elif kind == "refusal":
        yield "refusal", _string(part, "refusal")
    elif kind in _REASONING or part.get("thought") is True:
        yield "reasoning", _string(part, "thinking", "reasoning", "text", "summary")
    elif kind in _TEXT:
        yield "content", _string(part, "text", "content")
    else:
        raise UnreadableContentError(f"a part of type {kind!r}")


def _string(part: dict[str, Any], *names: str) -> str:
    for name in names:
        value = part.get(name)
        if isinstance(value, dict):  # {"text": {"value": ...}}
            value = value.get("value")
        if isinstance(value, list):
            value = "".join(text for _, text in pieces_of(value))
        if isinstance(value, str):
            return value
    raise UnreadableContentError(f"a part with the fields {', '.join(map(str, part))}")
