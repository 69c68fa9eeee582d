"""Child processes with Triton's interpreter on.

triton reads TRITON_INTERPRET when it is imported, and the pytest process may have imported it
without.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def interpreted(*arguments: str) -> subprocess.CompletedProcess:
    """Runs Python on ``arguments`` in this folder, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, cwd=HERE,
    )  # fmt: skip


def assert_agrees(program: str) -> None:
    """Runs a program, which must print "agree" at its end."""
    done = interpreted("-c", program)
    assert "agree" in done.stdout, done.stderr[-3000:]


def findings_of_worker(command: str, names: list[str]) -> dict:
    """{name: complaints} of the cases that one child runs, and its "stderr"."""
    done = interpreted("worker.py", command, *dict.fromkeys(names))
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["case"]: line["findings"] for line in lines} | {"stderr": done.stderr[-3000:]}


def selected(request, parameter: str) -> list[str]:
    """The values of a parameter in the selected tests of the requesting module."""
    here = [item for item in request.session.items if item.path == request.path]
    calls = [item.callspec.params for item in here if hasattr(item, "callspec")]
    return [params[parameter] for params in calls if parameter in params]
