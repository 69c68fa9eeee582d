"""Processes that take turns: the parent says "step" to one of them and reads what the step gave."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MARK = "RESULT "  # in front of lines for the parent; libraries print lines of their own


def say(**values: Any) -> None:
    """Child: hands values to the parent."""
    print(MARK + json.dumps(values), flush=True)


def wait_for_turn() -> None:
    """Child: waits until the parent says "step"; ends the process if the parent has gone."""
    if not sys.stdin.readline():
        sys.exit()
    forget_peak()


def forget_peak() -> None:
    """Forgets the peak memory so far."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak memory since ``forget_peak``, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = next(line for line in lines if line.startswith("VmHWM")).split()[1]
    return int(kib) / 1024


class Trainer:
    """Parent: a trainer in a process of its own, which waits for its turn before every step."""

    def __init__(self, module: str, settings: dict[str, Any], log: Path) -> None:
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        try:
            self._read()  # it is ready
        except RuntimeError:
            self.close()
            raise

    def step(self) -> dict[str, Any]:
        """Runs one step; returns what the trainer says of it, and its ``seconds``."""
        assert self.process.stdin is not None
        started = time.perf_counter()
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        said = self._read()
        return said | {"seconds": time.perf_counter() - started}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.log):
            assert file is not None
            file.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        self.process.wait()
        tail = Path(self.log.name).read_text()[-3000:]
        raise RuntimeError(f"the trainer ended with status {self.process.returncode}: {tail}")
