"""An answer of a chat endpoint, put together from pieces."""

from typing import Any, TypeGuard

from .ledger import Usage, text_tokens

BROKEN_OFF = ("abort", "error")
"""Finish reasons of servers and gateways that gave up in the middle of an answer."""
MOST_TOKENS = 10**9
"""Of one request; a count beyond is no count."""


class BadAnswerError(Exception):
    """An answer that is cut off, malformed or empty."""


class Answer:
    """What came so far; fields that an endpoint leaves out or adds are read leniently."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {"content": [], "refusal": []}
        # Endpoints that return thoughts apart call them by one name or the other, or by both.
        self._pieces |= {"reasoning_content": [], "reasoning": []}
        self._finish: str | None = None
        self._usage: Usage | None = None

    def take(self, piece: Any, part: str) -> None:
        """Adds a whole answer (part "message") or a piece of one ("delta").

        Raises:
            BadAnswerError: an error in place of an answer.
        """
        if (error := getattr(piece, "error", None)) is not None:
            raise BadAnswerError(f"an error in place of the answer: {error}")
        usage = getattr(piece, "usage", None)
        sent, received = (getattr(usage, f"{x}_tokens", None) for x in ("prompt", "completion"))
        if _is_count(sent) and _is_count(received):
            self._usage = Usage(sent, received)
        choices = getattr(piece, "choices", None)
        if not isinstance(choices, list) or not choices or getattr(choices[0], "index", 0):
            return  # only one choice is asked for; what another holds is not part of it
        said = getattr(choices[0], part, None)
        for name, pieces in self._pieces.items():
            text = getattr(said, name, None)
            if isinstance(text, str):
                pieces.append(text)
        self._finish = getattr(choices[0], "finish_reason", None) or self._finish

    def read(self, take_reasoning: bool) -> tuple[str, str]:
        """(text, finish) of a whole answer; finish is stop, length or refused.

        Raises:
            BadAnswerError: it ends in the middle, or is empty.
        """
        whole = {name: _text("".join(pieces)) for name, pieces in self._pieces.items()}
        text, refusal = whole["content"], whole["refusal"]
        reasoning = whole["reasoning_content"] or whole["reasoning"]
        if self._finish is None or self._finish in BROKEN_OFF:
            raise BadAnswerError("the answer is malformed or ends in the middle")
        if refusal or self._finish == "content_filter":
            return refusal or text, "refused"
        if not text and self._finish != "length":
            raise BadAnswerError("the answer is empty")
        if take_reasoning and reasoning:
            text = f"{reasoning}\n\n{text}"
        return text, "length" if self._finish == "length" else "stop"

    def usage(self, input_tokens: int) -> Usage:
        """As the endpoint counted; by rule of thumb where it did not and something was received;
        nothing where nothing came."""
        if self._usage is not None:
            return self._usage
        received = "".join(text for some in self._pieces.values() for text in some)
        if not received:
            return Usage()
        return Usage(input_tokens, text_tokens(received), estimated=True)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value <= MOST_TOKENS


def _text(said: str) -> str:
    """Without outer space, and without halves of surrogate pairs, which JSON can hold and UTF-8
    cannot."""
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
