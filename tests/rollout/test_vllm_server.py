"""The client of a vLLM server against a stub on the loopback; tests/vllm has the real one."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from avar_fast.config import RolloutConfig
from avar_fast.rollout import Sampling, WrongEngineError, vllm_server
from avar_fast.rollout.vllm_samples import unexpanded
from avar_fast.rollout.vllm_server import ServerError, VllmServer
from tests.data.samples import SYSTEM, TOKENIZER, encoder, samples
from tests.models.families import models

VISUAL = encoder().tokens.visual
SAMPLING = Sampling(
    num_samples=2,
    max_new_tokens=5,
    temperature=1.0,
    eos_ids=(TOKENIZER.eos_token_id, TOKENIZER.pad_token_id),
    pad_id=TOKENIZER.pad_token_id,
    banned_ids=VISUAL,
)


@dataclass
class Stub:
    """What the stub answers with, and what it was asked."""

    prompts: list[list[int]]
    fail: int = 0
    """Requests that are answered with 500 first."""
    max_model_len: int = 500
    models: object = None
    """Listed instead of one model."""
    posts: list[tuple[str, dict]] = field(default_factory=list)

    def answer(self, path, body):
        if path == "/v1/models":
            known = {"data": [{"id": "m", "max_model_len": self.max_model_len}]}
            return 200, known if self.models is None else self.models
        self.posts.append((path, body))
        if self.fail > 0:
            self.fail -= 1
            return 500, {"error": {"message": "worker is gone"}}
        if path != "/v1/chat/completions":
            return 200, {}
        number = str(body).count("?")  # rows end in as many
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": ""},
                "token_ids": [40 + number, 50 + index][: 1 + index],
                "logprobs": {
                    "content": [
                        {"token": "", "logprob": -1.0 - index, "top_logprobs": []}
                        for _ in range(1 + index)
                    ]
                },
            }
            for index in (1, 0)
        ]
        return 200, {"choices": choices, "prompt_token_ids": self.prompts[number]}


@contextmanager
def serving(stub):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(*stub.answer(self.path, {}))

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send(*stub.answer(self.path, json.loads(body or b"{}")))

        def _send(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(address, folder="unused", seconds=5.0, max_length=300):
    config = RolloutConfig(engine="vllm_server", server_url=address, server_seconds=seconds)
    return VllmServer(config, folder, SYSTEM, max_length)


@pytest.fixture
def prompts():
    return samples()


@pytest.fixture
def stub(prompts):
    return Stub([prompt.prompt_ids.tolist() for prompt in prompts])


def test_completions_come_in_the_order_of_prompts_and_samples(stub, prompts):
    with serving(stub) as address:
        engine = client(address)
        rollouts = engine.generate(prompts, SAMPLING)
        engine.close()
    assert rollouts.completion_ids[::2, 0].tolist() == [40, 41, 42, 43, 44]
    assert rollouts.completion_ids[1::2].tolist() == [[40 + i, 51] for i in range(5)]
    assert rollouts.completion_mask.sum(1).tolist() == [1, 2] * 5
    assert rollouts.log_probs.tolist() == [[-1.0, 0.0], [-2.0, -2.0]] * 5


def test_requests_ask_for_the_policy_itself(stub, prompts):
    with serving(stub) as address:
        torch.manual_seed(0)
        engine = client(address)
        engine.generate(prompts[:2], SAMPLING)
        torch.manual_seed(0)
        engine.generate(prompts[:2], SAMPLING)
        engine.close()
    bodies = sorted((body for _, body in stub.posts), key=lambda body: body["seed"])
    assert bodies[0]["seed"] == bodies[1]["seed"] < bodies[2]["seed"] == bodies[3]["seed"]
    for body in bodies:
        assert (body["n"], body["temperature"], body["top_p"], body["top_k"]) == (2, 1.0, 1.0, 0)
        assert (body["repetition_penalty"], body["ignore_eos"]) == (1.0, True)
        assert body["stop_token_ids"] == [TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]
        assert body["logit_bias"].keys() == set(map(str, VISUAL))
        assert body["messages"][0] == {"role": "system", "content": SYSTEM}


def test_a_prompt_read_as_other_tokens(stub, prompts):
    stub.prompts[0] = [*stub.prompts[0][:3], 1, *stub.prompts[0][4:]]
    with serving(stub) as address:
        engine = client(address)
        with pytest.raises(WrongEngineError, match=r"row 0: .* first that differs is number 3\."):
            engine.generate(prompts, SAMPLING)
        engine.close()


def test_an_unreachable_server_is_given_up_after_a_while(monkeypatch):
    monkeypatch.setattr(vllm_server, "POLL_SECONDS", 0.1)
    with pytest.raises(ServerError, match=r"did not answer in 0\.5 s, tried \d+ times; the las"):
        client("http://127.0.0.1:9", seconds=0.5)


@pytest.mark.parametrize("listed", ["<html>", [], {"data": []}, {"data": [{}]}, {"models": 3}])
def test_a_server_of_another_kind_is_named(stub, listed):
    """It ended in the openai client's AttributeError or an IndexError."""
    stub.models = listed
    expected = r"must be a vLLM server; http://.*/v1/models lists no model: "
    with serving(stub) as address, pytest.raises(ServerError, match=expected):
        client(address)


def test_a_server_that_fails_is_asked_again_and_then_named(stub, prompts, monkeypatch):
    monkeypatch.setattr(vllm_server, "RETRIES", 1)
    stub.fail = 1
    with serving(stub) as address:
        engine = client(address)
        engine.generate(prompts[:1], SAMPLING)
        stub.fail = 99
        expected = r"row 0: the server at .* tried 2 times, the last: .*worker is gone"
        with pytest.raises(ServerError, match=expected):
            engine.generate(prompts[:1], SAMPLING)
        engine.close()


def test_a_server_that_takes_fewer_tokens(stub):
    stub.max_model_len = 299
    with serving(stub) as address, pytest.raises(WrongEngineError, match="--max-model-len 300"):
        client(address)


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_weights_are_written_before_the_server_reads_them_and_caches_go_after(
    stub, tmp_path, monkeypatch
):
    monkeypatch.setattr(vllm_server, "RETRIES", 0)
    model, _ = models("qwen2_5_vl")
    with serving(stub) as address:
        engine = client(address, tmp_path / "weights")
        engine.sync_weights(model)
        stub.fail = 99
        with pytest.raises(ServerError, match="VLLM_SERVER_DEV_MODE=1"):
            engine.sync_weights(model)
        engine.close()
    paths = [path for path, _ in stub.posts[:4]]
    assert paths[0] == "/collective_rpc"
    assert set(paths[1:]) == {"/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"}
    assert stub.posts[0][1]["kwargs"]["weights_path"] == str(tmp_path / "weights")
    assert (tmp_path / "weights" / "model.safetensors").stat().st_size > 0


def test_prompts_have_one_pad_per_image(prompts):
    for prompt in prompts:
        ids = unexpanded(prompt.prompt_ids, VISUAL)
        assert ids.count(VISUAL[0]) == len(prompt.row.images)
        text = prompt.prompt_ids[~torch.isin(prompt.prompt_ids, torch.tensor(VISUAL))]
        assert [token for token in ids if token not in VISUAL] == text.tolist()
