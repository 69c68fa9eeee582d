"""One request to a chat endpoint, and its reply as it comes: whole, streamed, or as something
else."""

import json
from typing import Any

import openai

from .answer import Answer, BadAnswerError
from .served import ServedError, as_text

_OBJECTS: Any = openai.AsyncStream[object]  # pieces as JSON, not as openai's types have them


async def exchange(client: openai.AsyncOpenAI, body: dict[str, Any], answer: Answer) -> None:
    """Sends a request (``stream`` in its body) and fills ``answer``, piece by piece where the
    endpoint streams; one that streams unasked, or answers whole where it was to stream, is read
    too.

    Raises:
        openai.OpenAIError: as openai.
        BadAnswerError: a reply that is no answer of this protocol.
        ServedError: an error under a status of success.
    """
    create: Any = client.chat.completions.with_raw_response.create
    raw = await create(**body)
    try:
        if body.get("stream") and "text/event-stream" in raw.headers.get("content-type", ""):
            await _take_events(raw.parse(to=_OBJECTS), answer)
        else:
            _take_whole((await raw.http_response.aread()).decode("utf-8", "replace"), answer)
    except ServedError as error:
        error.headers = raw.headers
        raise
    finally:
        await raw.http_response.aclose()


async def _take_events(events: Any, answer: Answer) -> None:
    try:
        async for piece in events:
            answer.take(piece, "delta")
    except openai.APIError as error:
        if type(error) is not openai.APIError or not error.body:
            raise
        answer.take({"error": error.body}, "delta")  # read as any other; openai's message may not


def _take_whole(text: str, answer: Answer) -> None:
    begin = text.lstrip()[:6]
    if begin.startswith(("data:", "event:", ": ")):
        for line in text.splitlines():
            said = line.removeprefix("data:").strip()
            if line.startswith("data:") and said and said != "[DONE]":
                answer.take(_json(said), "delta")
        return
    body = _json(text)
    answer.take(body, "message")
    if not isinstance(body, dict) or not body.get("choices"):
        raise BadAnswerError(f"the answer is malformed: {as_text(text)}")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        said = as_text(text)
        if text.lstrip().startswith(("{", "[")):
            raise BadAnswerError(f"the answer is not JSON: {said}") from None
        raise BadAnswerError(f"the answer is malformed: {said or 'it is empty'}") from None
