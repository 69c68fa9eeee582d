"""Starts training processes as forks of one that has imported everything: importing torch and
DeepSpeed takes ten seconds of each process, a fork takes none.

Apart from that, the processes are like those of ``python -m``: each has its own environment,
arguments, output and exit code, and it can be killed.
"""

import atexit
import functools
import importlib
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "PIL.PngImagePlugin",
    "deepspeed.checkpoint.ds_to_universal",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "peft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "avar_fast.train.grpo.loop",
    "avar_fast.train.setup",
    "avar_fast.train.sft",
)
# Libraries read these when they are imported.
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


class ForkServer:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        self._logs = tempfile.TemporaryDirectory()
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.fork_server", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT,
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )
        theirs.close()

    def start(self, arguments: list[str], environment: dict[str, str]) -> "Forked":
        """Forks a process.

        Args:
            arguments: a module and its arguments, as after ``python -m``.
            environment: the process's whole environment.
        """
        log = tempfile.mkdtemp(dir=self._logs.name)
        return Forked(self, self.ask("fork", arguments, environment, log), Path(log))

    def ask(self, *request):
        self._connection.send(request)
        return self._connection.recv()

    def close(self) -> None:
        """Ends the server; its children go on."""
        self._connection.close()
        self._process.wait()
        self._logs.cleanup()


class Forked:
    """A process that ``ForkServer.start`` has started."""

    def __init__(self, server: ForkServer, pid: int, log: Path) -> None:
        self._server, self.pid, self._log = server, pid, log
        self.returncode: int | None = None

    @property
    def stdout(self) -> str:
        return (self._log / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._log / "stderr").read_text()

    def poll(self) -> int | None:
        """The exit code, None while it runs; -N after signal N."""
        if self.returncode is None:
            self.returncode = self._server.ask("poll", self.pid)
        return self.returncode

    def wait(self, seconds: float) -> int:
        """Its exit code. Kills it and raises an error if it does not end in time."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"not over after {seconds:g} s: {self.stderr[-3000:]}")
            time.sleep(0.02)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)


@functools.cache
def fork_server() -> ForkServer:
    """The server of this test process, started at the first call."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def serve(connection: Connection):
    """Answers requests until the other end is closed. Returns a second time, in each child, with
    what the child has to run."""
    while True:
        try:
            what, *details = connection.recv()
        except EOFError:
            return None
        if what == "fork":
            answer = os.fork()
            if answer == 0:
                return details
        else:
            pid, status = os.waitpid(details[0], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        connection.send(answer)


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    connection = Connection(int(sys.argv[1]))
    task = serve(connection)
    connection.close()
    if task is None:
        return
    (module, *arguments), environment, log = task
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(log) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
