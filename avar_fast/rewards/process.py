"""Runs a reward function in a separate process, which is killed when it takes too long."""

import contextlib
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from typing import Any

from .functions import RewardFault, Takes

START_SECONDS = 300.0  # a function may load a model when its module is imported


class RewardTimeoutError(Exception):
    """The function did not answer in time; its process was killed."""


class RewardProcess:
    """The process of one reward function. It starts at the first use, and again after it died or
    was killed.

    Args:
        name: a rule's name, or ``package.module:function``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Any = None

    def start(self) -> Takes:
        """Starts the process unless it is running; returns the arguments that its function takes.

        Raises:
            ValueError: the function cannot be loaded.
        """
        if self.process is not None:
            return self.takes
        self.connection, worker_end = Pipe()
        path = os.pathsep.join(p for p in sys.path if p)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "avar_fast.rewards.worker", str(worker_end.fileno()), self.name],
            stdin=subprocess.DEVNULL,
            stdout=2,  # stderr: stdout belongs to this program
            env=os.environ | {"PYTHONPATH": path},
            pass_fds=[worker_end.fileno()],
            start_new_session=True,  # so that its child processes can be killed with it
        )
        worker_end.close()
        state: str
        answer: Any
        try:
            state, answer = self._receive(START_SECONDS)
        except (EOFError, RewardTimeoutError) as error:
            state, answer = "error", f"its process ended or hung ({type(error).__name__})"
        if state == "error":
            self.close()
            raise ValueError(f"reward {self.name} cannot be loaded: {answer}.")
        self.takes: Takes = answer
        return answer

    def call(self, arguments: Any, seconds: float) -> tuple[Any, list[RewardFault]]:
        """Sends arguments to the process and returns its answer.

        Raises:
            RewardTimeoutError: no answer within ``seconds``.
            EOFError: the process died, for lack of memory or because the function ended it.
        """
        self.start()
        try:
            self.connection.send((seconds, arguments))
            return self._receive(seconds)
        except (RewardTimeoutError, EOFError, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if isinstance(error, RewardTimeoutError):
                raise
            raise EOFError("its process died") from error

    def _receive(self, seconds: float) -> Any:
        if not self.connection.poll(seconds):
            raise RewardTimeoutError
        return self.connection.recv()

    def close(self) -> None:
        """Kills the process and its child processes."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        self.process = None
