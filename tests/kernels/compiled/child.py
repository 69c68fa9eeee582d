"""Runs in a child process: answers requests, one JSON object per line on stdout.

python -m tests.kernels.compiled.child cases CHIP:DTYPE:CASE...
python -m tests.kernels.compiled.child strides CHIP:DTYPE:WHICH...
python -m tests.kernels.compiled.child faults CHIP:KERNEL...
"""

import dataclasses
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import planted, strides
from .chip import emulate
from .chip_cases import CASES

# The worker of the interpreter's tests imports its neighbors by their plain names.
sys.path.insert(0, str(Path(__file__).parents[1] / "triton_backend"))
import worker  # pyright: ignore[reportMissingImports]


def run_case(request: str) -> list[str]:
    """What is wrong with any output or gradient of a case."""
    chip, dtype, name = request.split(":")
    emulate(chip)
    return worker.run_case(name, dataclasses.replace(CASES[name], dtype=dtype))


def run_strides(request: str) -> list[str]:
    """The same of a call whose tensors have a stride beyond 2^31 elements or near it."""
    chip, dtype, which = request.split(":")
    emulate(chip)
    return worker.run_call(*strides.far_apart(which, dtype), dtype)


def run_faults(request: str) -> dict[str, str]:
    """What becomes of a kernel without one of its barriers or waits, for each of them."""
    chip, kernel = request.split(":")
    emulate(chip)
    return planted.outcomes(kernel)


COMMANDS: dict[str, Callable[[str], Any]] = {
    "cases": run_case, "strides": run_strides, "faults": run_faults,
}  # fmt: skip


def main(command: str, requests: list[str]) -> None:
    """Answers the requests in turn; an error is an answer too."""
    worker.prepare()
    for request in requests:
        try:
            answer = COMMANDS[command](request)
        except Exception:
            answer = [traceback.format_exc()]
        print(json.dumps({"request": request, "answer": answer}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
