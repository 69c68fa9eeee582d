"""out, mass, lse and all five gradients of the kernels against a float64 oracle, in Triton's
interpreter.

The numbers come from a child process (see ``worker``), started once for all cases: this pytest
process may already have imported triton without its interpreter, and other tests need it so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .cases import CASES

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def findings(request):
    """{case: complaints}, for the selected cases only."""
    here = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in here if hasattr(item, "callspec")]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(WORKER), "interpret", *dict.fromkeys(names)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["case"]: line["findings"] for line in lines} | {"stderr": done.stderr[-3000:]}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_match_the_oracle(findings, name):
    assert name in findings, f"the child process stopped before this case: {findings['stderr']}"
    assert not findings[name], "\n".join(findings[name])


def test_bfloat16_is_refused_by_the_interpreter():
    """Triton's interpreter multiplies bfloat16 tiles as if they were integers, without a word."""
    program = """
import torch
from avar_kernels import triton_backend
x = torch.ones(1, 4, 1, 16, dtype=torch.bfloat16)
options = dict(softmax_scale=1.0, causal=False, window=(-1, -1), num_types=1, packed=None)
triton_backend.forward(x, x, x, None, None, None, **options)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "NotImplementedError: Triton's interpreter multiplies bfloat16" in done.stderr


def test_importing_the_package_does_not_import_triton():
    program = """
import sys, torch
by_torch = "triton" in sys.modules
import avar_kernels.triton_backend
assert by_torch or "triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
