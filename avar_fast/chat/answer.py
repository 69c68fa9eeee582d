"""An answer of a chat endpoint, put together from pieces."""

from typing import Any, TypeGuard

from .content import UnreadableContentError, pieces_of
from .finish import kind_of
from .served import served_error

MOST_TOKENS = 10**9
"""Of one request; a count beyond is no count."""
# Endpoints that return thoughts apart call them by one of these names, or by several at once.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


class BadAnswerError(Exception):
    """An answer that is cut off, malformed or empty."""

    def __init__(self, message: str, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry
        """Whether another try may end otherwise; one that reads alike is paid for in vain."""


class Answer:
    """What came so far; fields that an endpoint leaves out or adds are read leniently."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {"content": [], "refusal": []}
        self._pieces |= {name: [] for name in ("reasoning parts", *_REASONING_FIELDS)}
        self._finish: Any = None
        self._calls_tool = False
        self._unreadable: str | None = None
        self.counts: tuple[int, int] | None = None
        """Tokens sent and received, as the endpoint counted."""

    def take(self, piece: Any, part: str) -> None:
        """Adds a whole answer (part "message") or a piece of one ("delta"), as JSON.

        Raises:
            ServedError: an error in place of an answer.
        """
        if (error := served_error(piece)) is not None:
            raise error
        if not isinstance(piece, dict):
            return
        self._count(piece.get("usage"))
        choices = piece.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict) or first.get("index"):
            return  # only one choice is asked for; what another holds is not part of it
        said = first.get(part)
        if isinstance(said, dict):
            self._take_said(said)
        self._finish = first.get("finish_reason") or self._finish

    def read(self, take_reasoning: bool = False) -> tuple[str, str]:
        """(text, finish) of a whole answer; finish is stop, length or refused.

        Raises:
            BadAnswerError: it ends in the middle, in no known way or with a call of a tool, holds
                what is no text, or is empty.
        """
        kind = kind_of(self._finish)
        if self._finish is None:
            raise BadAnswerError("the answer is malformed or ends in the middle")
        if kind == "broken":
            raise BadAnswerError(f"the answer ends in the middle: {self._told_finish()}")
        whole = {name: _text("".join(pieces)) for name, pieces in self._pieces.items()}
        text, refusal = whole["content"], whole["refusal"]
        if refusal or kind == "refused":
            return refusal or text, "refused"
        if kind is None:
            raise BadAnswerError(
                f"the answer ends in a way that is not known: {self._told_finish()}", retry=False
            )
        if kind == "tool" or (self._calls_tool and not text):
            raise BadAnswerError(
                f"the answer calls a tool, and none was offered: {self._told_finish()}", retry=False
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
        """All text that came, whatever it is."""
        return "".join(text for some in self._pieces.values() for text in some)

    def _take_said(self, said: dict[str, Any]) -> None:
        self._calls_tool |= bool(said.get("tool_calls") or said.get("function_call"))
        for name in ("refusal", *_REASONING_FIELDS):
            if isinstance(said.get(name), str):
                self._pieces[name].append(said[name])
        try:
            for kind, text in pieces_of(said.get("content")):
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

    def _told_finish(self) -> str:
        return f"finish_reason {self._finish!r}"


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _text(said: str) -> str:
    """Without outer space, and without halves of surrogate pairs, which JSON can hold and UTF-8
    cannot."""
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
