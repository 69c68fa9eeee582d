"""Child processes in which kernels are compiled and emulated.

triton reads TRITON_INTERPRET when it is imported, and the pytest process may have imported it with
its interpreter on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def emulated(*arguments: str) -> subprocess.CompletedProcess:
    """Runs Python on ``arguments`` in the repository's root, with warnings as errors."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def assert_agrees(program: str) -> None:
    """Runs a program, which must print "agree" at its end."""
    done = emulated("-c", program)
    assert "agree" in done.stdout, done.stderr[-3000:]


def answers(command: str, requests: list[str]) -> dict:
    """{request: answer} of one child for all requests, and its "stderr"; see ``child``."""
    done = emulated("-m", "tests.kernels.compiled.child", command, *dict.fromkeys(requests))
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["request"]: line["answer"] for line in lines} | {"stderr": done.stderr[-3000:]}


def assert_right(found: dict, request: str) -> None:
    """A request was answered, with nothing wrong."""
    assert request in found, f"the child process stopped before this request: {found['stderr']}"
    assert not found[request], "\n".join(found[request])
