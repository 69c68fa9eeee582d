"""Tries imports and kernels in child processes, which may crash or hang in place of the doctor."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable

KERNEL = "backend "
"""Begins the name of a kernel backend; other names are modules and functions."""
SECONDS = 300.0  # importing vLLM for the first time takes a minute on a slow disk


def try_imports(modules: Iterable[str]) -> dict[str, str]:
    """{module, or package.module:function: "", or the error of its import in one line}."""
    return _try(list(dict.fromkeys(modules)))


def try_backends(backends: Iterable[str]) -> dict[str, str]:
    """{kernel backend: "", or the error of a small call in one line}."""
    tried = _try([KERNEL + name for name in backends])
    return {name.removeprefix(KERNEL): error for name, error in tried.items()}


def _try(names: list[str]) -> dict[str, str]:
    """Every name in one child; in a further one from the name on at which a child ended."""
    found: dict[str, str] = {}
    while todo := [name for name in names if name not in found]:
        found |= _answers(todo)
    return found


def _answers(names: list[str]) -> dict[str, str]:
    """What a child says about the names. One at which it ended is the last, with the reason."""
    # The same modules as here: the same path, and not the current folder before it.
    path = os.pathsep.join(folder or "." for folder in sys.path)
    environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.child", *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        printed, errors = child.communicate(timeout=SECONDS)
        ended = _ending(child.returncode, errors)
    except subprocess.TimeoutExpired:
        child.kill()
        printed, _ = child.communicate()
        ended = f"did not end within {SECONDS:g} s"
    found = {name: error for name, error in map(json.loads, printed.splitlines())}
    missed = next((name for name in names if name not in found), None)
    return found if missed is None else found | {missed: ended}


def _ending(code: int, errors: str) -> str:
    if code < 0:
        return f"ended the process with {signal.Signals(-code).name}"
    lines = errors.strip().splitlines()
    return f"ended the process with exit code {code}" + (f": {lines[-1]}" if lines else "")
