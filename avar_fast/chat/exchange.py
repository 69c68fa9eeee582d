"""Sends one request to a chat endpoint and reads the reply, whether whole or streamed."""

import json
from typing import Any

import openai

from .answer import Answer, BadAnswerError
from .served import ServedError, as_text

_OBJECTS: Any = openai.AsyncStream[object]  # pieces as plain JSON instead of openai's types


async def exchange(client: openai.AsyncOpenAI, body: dict[str, Any], answer: Answer) -> None:
    """Sends a request and fills ``answer`` as the reply arrives.

    ``stream`` in ``body`` requests a streamed reply. A reply is also read if the endpoint streams
    without being asked to, or sends a whole answer instead of a stream.

    Raises:
        openai.OpenAIError: the request failed in the openai client.
        BadAnswerError: the reply is not an answer of this protocol.
        ServedError: the body holds an error although the HTTP status reports success.
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
        # Read here, because openai's own message may leave out what the body says.
        answer.take({"error": error.body}, "delta")


def _take_whole(text: str, answer: Answer) -> None:
    begin = text.lstrip()[:6]
    if begin.startswith(("data:", "event:", ": ")):
        for line in text.splitlines():
            data = line.removeprefix("data:").strip()
            if line.startswith("data:") and data and data != "[DONE]":
                answer.take(_json(data), "delta")
        return
    body = _json(text)
    answer.take(body, "message")
    if not isinstance(body, dict) or not body.get("choices"):
        raise BadAnswerError(f"the answer is malformed: {as_text(text)}")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        message = as_text(text)
        if text.lstrip().startswith(("{", "[")):
            raise BadAnswerError(f"the answer is not JSON: {message}") from None
        raise BadAnswerError(f"the answer is malformed: {message or 'it is empty'}") from None
