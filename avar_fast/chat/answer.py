"""The answer of a chat endpoint, assembled from its pieces."""

from typing import Any, TypeGuard

from .content import UnreadableContentError, pieces_of
from .finish import kind_of
from .served import served_error

MOST_TOKENS = 10**9
"""Largest token count of one request that is believed. Implausible counts are ignored."""
# Endpoints that return reasoning separately use one of these names, or several at once.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


class BadAnswerError(Exception):
    """An answer that is cut off, malformed or empty."""

    def __init__(self, message: str, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry
        """Whether another attempt may succeed. False if it would cost money and end the same."""


class Answer:
    """The part of an answer that has arrived so far. Missing and extra fields are tolerated."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {"content": [], "refusal": []}
        self._pieces |= {name: [] for name in ("reasoning parts", *_REASONING_FIELDS)}
        self._finish: Any = None
        self._calls_tool = False
        self._unreadable: str | None = None
        self.counts: tuple[int, int] | None = None
        """(sent, received) tokens as counted by the endpoint; None if it reported no counts."""

    def take(self, piece: Any, part: str) -> None:
        """Adds a piece of JSON to the answer.

        Args:
            piece: parsed JSON of a whole answer or of one streamed piece.
            part: "message" for a whole answer, "delta" for a streamed piece.

        Raises:
            ServedError: the JSON holds an error instead of an answer.
        """
        if (error := served_error(piece)) is not None:
            raise error
        if not isinstance(piece, dict):
            return
        self._count(piece.get("usage"))
        choices = piece.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict) or first.get("index"):
            return  # only one choice was requested; others are not part of the answer
        message = first.get(part)
        if isinstance(message, dict):
            self._take_message(message)
        self._finish = first.get("finish_reason") or self._finish

    def read(self, take_reasoning: bool = False) -> tuple[str, str]:
        """Reads the complete answer.

        Args:
            take_reasoning: put reasoning that arrived separately in front of the text.

        Returns:
            (text, finish); finish is stop, length or refused.

        Raises:
            BadAnswerError: the answer breaks off, ends for an unknown reason, calls a tool, holds
                something other than text, or is empty.
        """
        kind = kind_of(self._finish)
        if self._finish is None:
            raise BadAnswerError("the answer is malformed or ends in the middle")
        if kind == "broken":
            raise BadAnswerError(f"the answer ends in the middle: {self._finish_text()}")
        whole = {name: _text("".join(pieces)) for name, pieces in self._pieces.items()}
        text, refusal = whole["content"], whole["refusal"]
        if refusal or kind == "refused":
            return refusal or text, "refused"
        if kind is None:
            raise BadAnswerError(
                f"the answer ends in a way that is not known: {self._finish_text()}", retry=False
            )
        if kind == "tool" or (self._calls_tool and not text):
            raise BadAnswerError(
                f"the answer calls a tool, and none was offered: {self._finish_text()}", retry=False
            )
        if self._unreadable is not None:
            raise BadAnswerError(f"the answer holds {self._unreadable}, not text", retry=False)
        if not text and kind != "length":
            raise BadAnswerError("the answer is empty")
        if take_reasoning:
            thoughts = (whole[name] for name in (*_REASONING_FIELDS, "reasoning parts"))
            text = "\n\n".join(filter(None, (next(filter(None, thoughts), ""), text)))
        return text, kind

    @property
    def received(self) -> str:
        """All text received so far: content, refusal and reasoning."""
        return "".join(text for pieces in self._pieces.values() for text in pieces)

    def _take_message(self, message: dict[str, Any]) -> None:
        self._calls_tool |= bool(message.get("tool_calls") or message.get("function_call"))
        for name in ("refusal", *_REASONING_FIELDS):
            if isinstance(message.get(name), str):
                self._pieces[name].append(message[name])
        try:
            for kind, text in pieces_of(message.get("content")):
                self._pieces["reasoning parts" if kind == "reasoning" else kind].append(text)
        except UnreadableContentError as error:
            self._unreadable = str(error)

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        sent = usage.get("prompt_tokens", usage.get("input_tokens"))
        received = usage.get("completion_tokens", usage.get("output_tokens"))
        if _is_count(sent) and _is_count(received):
            self.counts = sent, received

    def _finish_text(self) -> str:
        return f"finish_reason {self._finish!r}"


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _text(received: str) -> str:
    """Strips outer white space and replaces unpaired surrogates, which JSON can hold and UTF-8
    cannot."""
    return received.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
