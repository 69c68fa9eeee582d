"""``avar_kernels.warm`` compiles all that calls of other lengths and batch sizes launch. A driver
that compiles for a real chip and launches nothing stands in for a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from avar_kernels.warm import WrongKernelError, compare, shape_of_model
from avar_kernels.warm_calls import make_calls

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, pytest, torch
from bench import stand_in_driver
stand_in_driver.install(pytest.MonkeyPatch())
from avar_kernels.triton_backend import launch
launch.multiprocessors = lambda device: stand_in_driver.MULTIPROCESSORS
from triton import knobs
compiled = []
def listener(*, src, **unused):
    compiled.append(src.name)
knobs.compilation.listener = listener
from avar_kernels import (plan_keys, plan_prefixes, visual_attn_func, visual_attn_varlen_func,
                          visual_attn_with_kvcache)
from avar_kernels.warm import warm
calls = list(warm(4, 2, 64, device="cpu", check=False))  # nothing is computed here
after_warm = len(compiled)
for batch, length in ((1, 1), (1, 16), (3, 31), (2, 129), (1, 1000)):
    q = torch.zeros(batch, length, 4, 64, dtype=torch.bfloat16, requires_grad=True)
    k = torch.zeros(batch, length, 2, 64, dtype=torch.bfloat16, requires_grad=True)
    types = torch.zeros(batch, length, dtype=torch.int32)
    dense = visual_attn_func(q, k, k, plan_keys(types), causal=True, backend="triton")
    offsets = torch.arange(batch + 1, dtype=torch.int32) * length
    lengths = {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets,
               "max_seqlen_q": length, "max_seqlen_k": length}
    packed = visual_attn_varlen_func(
        q.flatten(0, 1), k.flatten(0, 1), k.flatten(0, 1), **lengths,
        key_types=plan_keys(types.flatten(), **lengths), causal=True, backend="triton")
    lengths["prefix_index"] = torch.full((batch,), -1, dtype=torch.int32)
    lengths["prefix_index"][1:] = 0
    prefixes = visual_attn_varlen_func(
        q.flatten(0, 1), k.flatten(0, 1), k.flatten(0, 1), **lengths,
        key_types=plan_keys(types.flatten(), **lengths), causal=True, backend="triton")
    for out, mass, lse in (dense, packed, prefixes):
        torch.autograd.grad(out.float().sum() + mass.sum() + lse.sum(), (q, k))
    rows = batch * 8
    cache = torch.zeros(rows, 2, length + 64, 64, dtype=torch.bfloat16)
    cache = cache[:, :, :length].transpose(1, 2)
    plan = plan_prefixes(torch.arange(batch).repeat_interleave(8).int(), types)
    visual_attn_with_kvcache(
        torch.zeros(rows, 1, 4, 64, dtype=torch.bfloat16), cache, cache,
        plan_keys(torch.zeros(rows, length, dtype=torch.int32)), backend="triton",
        prefix_k=k.detach(), prefix_v=k.detach(), prefix_index=plan)
print(json.dumps({"calls": [call.name for call in calls], "warm": after_warm,
                  "later": compiled[after_warm:]}))
"""


CHECKING = """
import torch
from avar_kernels import warm, warm_calls
warm_calls.LENGTH, warm_calls.LONGEST_KEY_BLOCK = 96, 1  # the interpreter is slow
calls = warm.warm(2, 1, 16, dtype=torch.float32, device="cpu")
print([next(calls).checked for _ in range(3)])
"""


def run(program, **environment):
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False,
        env=kept | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def test_no_length_or_batch_size_compiles_more():
    done = run(PROGRAM)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["calls"]) == 10
    assert found["warm"] == 24
    assert found["later"] == []


def test_right_kernels_pass():
    done = run(CHECKING, TRITON_INTERPRET="1")
    assert done.stdout == "[True, True, True]\n", done.stderr[-3000:]


@pytest.fixture(scope="module")
def results():
    """Of a dense call and of decoding, computed in bfloat16 and in float32."""
    calls = make_calls(4, 2, 64, 3, torch.device("cpu"))
    chosen = [calls["dense, forward and backward"], calls["decoding"]]
    return [(call("cpu", torch.bfloat16), call("eager", torch.float32)) for call in chosen]


def test_rounded_results_pass(results):
    for got, want in results:
        compare("a call", got, want, torch.bfloat16)


FAULTS = {
    "half of out": ("out", lambda x: x * 0.7),
    "a block of dk": ("dk", lambda x: x.index_fill(1, torch.arange(512, 640), 0)),
    "a block of dv": ("dv", lambda x: x.index_fill(1, torch.arange(512, 640), 0)),
    "one row of dq": ("dq", lambda x: x.index_fill(1, torch.tensor([300]), torch.nan)),
    "one mass": ("mass", lambda x: x + torch.tensor([0.05, 0, 0])),
    "masses of other types": ("mass", lambda x: x.roll(1, -1)),
    "lse": ("lse", lambda x: x + 0.01),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_result_is_an_error(results, fault):
    name, spoil = FAULTS[fault]
    for got, want in results:
        if name in got:
            with pytest.raises(WrongKernelError, match=f"a call: {name} is wrong in"):
                compare("a call", got | {name: spoil(got[name])}, want, torch.bfloat16)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (
            {
                "text_config": {
                    "num_attention_heads": 28,
                    "num_key_value_heads": 4,
                    "hidden_size": 3584,
                }
            },
            {"heads": 28, "kv_heads": 4, "head_dim": 128},
        ),
        (
            {"num_attention_heads": 16, "head_dim": 128, "hidden_size": 1024},
            {"heads": 16, "kv_heads": 16, "head_dim": 128},
        ),
    ],
)
def test_shape_of_a_model(tmp_path, config, shape):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of_model(tmp_path) == shape
