"""An answer of a chat endpoint, put together from pieces."""

from typing import Any

from .ledger import Usage, text_tokens


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
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        if isinstance(counts[0], int):
            self._usage = Usage(counts[0], counts[1] if isinstance(counts[1], int) else 0)
        choices = getattr(piece, "choices", None)
        if not isinstance(choices, list) or not choices:
            return
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
        whole = {name: "".join(pieces).strip() for name, pieces in self._pieces.items()}
        text, refusal = whole["content"], whole["refusal"]
        reasoning = whole["reasoning_content"] or whole["reasoning"]
        if self._finish is None:
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
