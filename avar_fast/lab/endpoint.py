"""The lab's writer behind OpenAI's chat protocol on the loopback, whole or streamed."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from .writer import MODELS, CannotWriteError, write

PIECE_CHARS = 64


@contextmanager
def serve() -> Iterator[str]:
    """Serves on a free port of 127.0.0.1 while the context lasts; gives the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """One line per request on stderr would drown the run's own words."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._send_json(404, _error(f"no such path: {self.path}"))
            return
        models = [{"id": name, "object": "model"} for name in MODELS]
        self._send_json(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            self._send_json(404, _error(f"no such path: {self.path}"))
            return
        try:
            body = json.loads(content)
            text, images = _user_turn(body["messages"])
            answer = write(body["model"], text, images, int(body.get("seed") or 0))
        except (CannotWriteError, KeyError, TypeError, ValueError, OSError) as error:
            self._send_json(400, _error(f"{type(error).__name__}: {error}"))
            return
        # One token per four characters, as good a count as any for a writer without tokens.
        sent, received = len(text) // 4 + 64 * len(images), len(answer) // 4
        usage = {
            "prompt_tokens": sent,
            "completion_tokens": received,
            "total_tokens": sent + received,
        }
        if body.get("stream"):
            self._stream(body, answer, usage)
            return
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send_json(200, _head(body, "chat.completion") | {"choices": [choice], "usage": usage})

    def _stream(self, body: dict[str, Any], answer: str, usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        head = _head(body, "chat.completion.chunk")
        for at in range(0, len(answer), PIECE_CHARS):
            delta = {"role": "assistant", "content": answer[at : at + PIECE_CHARS]}
            self._event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self._event(head | {"choices": [last]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event(head | {"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, piece: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _user_turn(messages: Any) -> tuple[str, list[Image.Image]]:
    """Text and images of the last user turn."""
    content = [turn for turn in messages if turn["role"] == "user"][-1]["content"]
    parts: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    uris = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    blobs = [base64.b64decode(uri.partition(",")[2], validate=True) for uri in uris]
    return text, [Image.open(io.BytesIO(blob)) for blob in blobs]


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    created = int(time.time())
    return {"id": f"lab-{created}", "object": kind, "created": created, "model": body["model"]}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}
