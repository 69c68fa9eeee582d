"""Evaluation with vLLM as the engine, for real: greedy completions are the model's own."""

import os
import subprocess
import sys

import pytest

from avar_fast.evaluate import read_result

from .api_server import serving
from .environment import ENVIRONMENT, ROOT, needs_vllm, torchrun

pytestmark = needs_vllm
KV_CACHE = ["--rollout=kv_cache_gib=0.5", "--rollout=cuda_graphs=false"]


def arguments(model, rows, out, engine, *more):
    return [
        "-m", "avar_fast.evaluate", str(model), f"--data={rows}", f"--out={out}", "--no-vas",
        "--dtype=float32", "--max-new-tokens=12", "--batch-size=4", f"--engine={engine}", *more,
    ]  # fmt: skip


def evaluate(model, rows, out, engine, *more):
    done = subprocess.run(
        [sys.executable, *arguments(model, rows, out, engine, *more)],
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return completions(out)


def completions(out):
    result = read_result(out)
    assert len(result.predictions) == 4
    return [(p.id, p.completion, p.num_tokens, p.truncated) for p in result.predictions]


@pytest.fixture(scope="module")
def own(tmp_path_factory, untied_model, rows):
    return evaluate(untied_model, rows, tmp_path_factory.mktemp("own") / "r.json", "model")


def test_in_this_process(tmp_path, untied_model, rows, own):
    assert evaluate(untied_model, rows, tmp_path / "r.json", "vllm", *KV_CACHE) == own


def test_on_two_ranks(tmp_path, untied_model, rows, own):
    out = tmp_path / "r.json"
    torchrun(*arguments(untied_model, rows, out, "vllm", *KV_CACHE), ranks=2)
    assert completions(out) == own


def test_by_a_server(tmp_path, untied_model, rows, own):
    with serving(untied_model, dev_mode=False) as address:
        at = f"--rollout=server_url={address}"
        assert evaluate(untied_model, rows, tmp_path / "r.json", "vllm_server", at) == own
