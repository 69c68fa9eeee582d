"""A vLLM server on the loopback, which tests start, kill and start again."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

from .environment import ENVIRONMENT, ROOT

START_SECONDS = 240


class Server:
    """Serves a model folder on a port of its own."""

    def __init__(self, folder, *options, dev_mode=True):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder.parent / f"server-{self.port}.log"
        settings = {"VLLM_SERVER_DEV_MODE": str(int(dev_mode)), "VLLM_CPU_KVCACHE_SPACE": "1"}
        self._environment = os.environ | ENVIRONMENT | settings
        self._command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(folder), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--dtype", "float32", "--enforce-eager", "--max-model-len", "256"),
            *("--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
            *options,
        ]

    def start(self):
        """Returns when the server answers."""
        with self.log.open("a") as file:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group to kill: the engine is a process of its own
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.read("/health")
                return
            except OSError:
                assert self._process.poll() is None, self.log.read_text()[-4000:]
                assert time.monotonic() < deadline, self.log.read_text()[-4000:]
                time.sleep(0.5)

    def read(self, path):
        with urllib.request.urlopen(self.address + path, timeout=5) as answer:
            return answer.read().decode()

    def total(self, counter):
        """The sum of a counter since the start, over its labels."""
        pattern = rf"^vllm:{counter}_total{{.*}} (\S+)$"
        return round(sum(map(float, re.findall(pattern, self.read("/metrics"), re.MULTILINE))))

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=60)

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=60)


@contextmanager
def serving(folder, *options, dev_mode=True):
    """The address of a server for a model folder."""
    server = Server(folder, *options, dev_mode=dev_mode)
    try:
        server.start()
        yield server.address
    finally:
        server.stop()
