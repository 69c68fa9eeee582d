"""The environment that vLLM's CPU build needs, a model, rows, and recipes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; see make test-vllm"
)
ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(map(str, (HERE / "site", ROOT, ROOT / "kernels"))),
}


def torchrun(*arguments, expect=0, ranks=1, timeout=300):
    """Runs Python on so many ranks; returns what they said."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == (expect != 0), said[-6000:]
    return said


def write_recipe(folder, path, rows, name="run", **sections):
    """A short GRPO run in float32 whose every step moves the weights."""
    recipe = {
        "stage": "grpo",
        "model": {"path": str(path), "dtype": "float32"},
        "data": {"path": str(rows), "workers": 0, "max_length": 200},
        "optim": {"lr": 0.01, "schedule": "constant"},
        "grpo": {
            "group_size": 3,
            "max_new_tokens": 12,
            "rewards": {"tests.vllm.reward:length": 1.0, "visual": 0.1},
            "visual_form": "share",
            "loss": "dapo",
        },
        "rollout": {"engine": "vllm", "kv_cache_gib": 0.0625, "cuda_graphs": False},
        "train": {
            "output_dir": str(folder / name),
            "steps": 3,
            "batch_size": 4,
            "micro_batch_size": 6,
        },
    }
    for section, values in sections.items():
        recipe.setdefault(section, {}).update(values)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def read_log(folder, name="run"):
    lines = (folder / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
