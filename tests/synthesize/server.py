"""A small OpenAI-compatible chat server with faults on demand, independent of the lab's.

It is scripted: ``answer(step, request)`` says what a model writes, and ``faults`` what goes wrong
with the next requests of a step before it does.
"""

import json
import socket
import threading
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DESCRIPTION = "Two blue circles beside one red square, all of them the same size."
REASONING = (
    "The question asks for the number of circles. The description says that two circles stand"
    " beside a square, so there are two. Checking the description again: two circles, one square."
)
ANCHORED = (
    "The question asks for the number of circles. Looking at the picture, I see two circles beside"
    " a square, so there are two. Let me look again at the left half of the image to be sure: two"
    " circles, and one square on the right, which does not count."
)


def usual(step, request):
    return {
        "describe": DESCRIPTION,
        "reason": f"{REASONING}\n<answer>2</answer>",
        "rewrite": f"{ANCHORED}\n<answer>2</answer>",
    }[step]


@dataclass
class Script:
    answer: object = usual
    faults: dict = field(default_factory=lambda: defaultdict(deque))
    """{step: faults, one per request}: a name, a status, or a dict with "body" (and "status",
    "type", "headers") in place of an answer, or with "finish", "parts" or "message" for one."""
    fault_if: object = None
    """(step, request) -> a fault, or None; where none is scripted."""
    requests: list = field(default_factory=list)
    """(step, body, headers, time) of every request that came."""
    delay_s: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def asked(self, step=None):
        return [r for r in self.requests if step in (None, r[0])]


@contextmanager
def serving(script):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            step = body["model"].removeprefix("test-")
            with script.lock:
                script.requests.append((step, body, self.headers, time.monotonic()))
                script.at_once += 1
                script.most_at_once = max(script.most_at_once, script.at_once)
                fault = script.faults[step].popleft() if script.faults[step] else None
            if fault is None and script.fault_if:
                fault = script.fault_if(step, body)
            try:
                time.sleep(script.delay_s)
                reply(self, body, fault, script.answer(step, body))
            except (BrokenPipeError, ConnectionResetError):
                pass  # a client that gave up
            finally:
                with script.lock:
                    script.at_once -= 1

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler, body, fault, text):
    finish, refusal = "stop", None
    if isinstance(fault, int):
        send(handler, fault, json.dumps({"error": {"message": f"fault {fault}"}}))
        return
    if isinstance(fault, dict) and "body" in fault:
        content = fault["body"] if isinstance(fault["body"], str) else json.dumps(fault["body"])
        headers = {"Content-Type": fault.get("type", "application/json")}
        send(handler, fault.get("status", 200), content, *(headers | made(fault)).items())
        return
    if fault == "wait":
        send(handler, 429, json.dumps({"error": {"message": "slow down"}}), ("Retry-After", "1"))
        return
    if fault == "leak":
        key = handler.headers["Authorization"]
        send(handler, 500, json.dumps({"error": {"message": f"bad {key}"}}))
        return
    if fault == "hang":
        time.sleep(2.0)
        fault = "cut"
    if fault == "garbage":
        kind = "text/event-stream" if body.get("stream") else "application/json"
        content = 'data: {"choices": [{"del\n\n' if body.get("stream") else '{"choices": [{"mess'
        send(handler, 200, content, ("Content-Type", kind))
        return
    if fault == "nested":
        content = "[" * 100_000
        kind = "text/event-stream" if body.get("stream") else "application/json"
        content = f"data: {content}\n\n" if body.get("stream") else content
        send(handler, 200, content, ("Content-Type", kind))
        return
    if fault == "page":
        send(handler, 200, "<html>Welcome</html>", ("Content-Type", "text/html"))
        return
    if fault == "empty":
        text = ""
    if fault == "abort":
        text, finish = text[:20], "abort"
    if fault == "echo":
        text = f"{text} {handler.headers['Authorization']}"
    if fault == "length":
        text, finish = text[:20], "length"
    if fault == "refusal":
        text, refusal = None, "I will not."
    if fault == "filter":
        text, finish = "", "content_filter"
    more = {}
    if isinstance(fault, dict):
        finish, more = fault.get("finish", finish), fault.get("message", {})
        text = fault["parts"](text) if "parts" in fault else text
    if body.get("stream"):
        stream(handler, text, finish, refusal, more, fault)
        return
    message = {"role": "assistant", "content": text, "refusal": refusal} | more
    choice = {"index": 0, "message": message, "finish_reason": finish}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
    content = json.dumps(whole | {"choices": [choice]} | usage(fault))
    if fault == "cut":
        content = content[: len(content) // 2]
    send(handler, 200, content)


def made(fault):
    """Headers, those that depend on the time of the reply made now."""
    return {k: v() if callable(v) else v for k, v in fault.get("headers", {}).items()}


def usage(fault):
    if fault == "no usage":
        return {}
    if fault == "bad usage":
        return {"usage": {"prompt_tokens": -(10**6), "completion_tokens": 10**400}}
    return {"usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}}


def send(handler, status, content, *headers):
    content = content.encode()
    if any(name == "Date" for name, _ in headers):
        handler.send_response_only(status)
    else:
        handler.send_response(status)
    if not any(name == "Content-Type" for name, _ in headers):
        headers = (*headers, ("Content-Type", "application/json"))
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def stream(handler, text, finish, refusal, more, fault):
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()

    def chunk(data):
        handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(choices, **more):
        piece = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunk(f"data: {json.dumps(piece | {'choices': choices} | more)}\n\n".encode())

    text = text or ""
    if more:
        event([{"index": 0, "delta": more, "finish_reason": None}])
    if isinstance(text, list):  # one part in a piece
        for part in text:
            event([{"index": 0, "delta": {"content": [part]}, "finish_reason": None}])
        text = ""
    for at in range(0, len(text), 40):
        event([{"index": 0, "delta": {"content": text[at : at + 40]}, "finish_reason": None}])
        if fault == "cut" and at > len(text) / 2:
            # As of a proxy that dies: no closing chunk.
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
    if fault == "ends early":
        handler.wfile.write(b"0\r\n\r\n")
        return
    if refusal:
        event([{"index": 0, "delta": {"refusal": refusal}, "finish_reason": None}])
    event([{"index": 0, "delta": {}, "finish_reason": finish}])
    if fault != "no usage":
        event([], **usage(fault))
    chunk(b"data: [DONE]\n\n")
    handler.wfile.write(b"0\r\n\r\n")
