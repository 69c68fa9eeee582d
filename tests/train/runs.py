"""Starts the trainer on recipes and reads what it writes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from .fork_server import ROOT, Forked, fork_server

REWARDS = "tests.train.reward_functions"  # whose functions recipes name
GRPO = ["stage=grpo", "agto.enabled=false", "train.batch_size=2"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(world, output, *arguments, ranks=1, check=True):
    """The trainer from start to end on so many ranks, in the environment that torchrun gives them.

    Returns:
        ``returncode`` (0 if that of all ranks is), and ``stdout`` and ``stderr`` of all ranks.
    """
    command = ["avar_fast.train", str(world / "recipe.yaml"), f"train.output_dir={output}"]
    return on_ranks([*command, *arguments], ranks, check)


def alone(world, output, *arguments):
    """Stage grpo from start to end in one process without torchrun's environment: (exit code, all
    that it printed)."""
    process = start(world, output, *GRPO, *arguments)
    process.wait(200)
    return process.returncode, process.stdout + process.stderr


def start(world, output, *arguments) -> Forked:
    """The trainer in the background, in one process without torchrun's environment."""
    command = ["avar_fast.train", str(world / "recipe.yaml"), f"train.output_dir={output}"]
    return _fork([*command, *arguments], {})


def torchrun(world, output, *arguments, ranks):
    """The trainer in the background, as users start it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={ranks}", "-m", "avar_fast.train", str(world / "recipe.yaml")]
    return subprocess.Popen(
        [*command, f"train.output_dir={output}", *arguments],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    )  # fmt: skip


def launch(recipes, ranks, how="start"):
    """Trains recipes to their ends, one after the other in one process per rank.

    Args:
        how: "start" or "resume".
    """
    on_ranks(["tests.train.engine_worker", how, json.dumps([str(r) for r in recipes])], ranks)


def on_ranks(command, ranks, check=True):
    """A module and its arguments on so many ranks, to the end; returns what ``run`` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    processes = [
        _fork(command, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    codes = [process.wait(300) for process in processes]
    done = SimpleNamespace(
        returncode=next((code for code in codes if code), 0),
        stdout="".join(process.stdout for process in processes),
        stderr="".join(process.stderr for process in processes),
    )
    if check:
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done


def _fork(command, environment) -> Forked:
    return fork_server().start(command, os.environ | ENVIRONMENT | environment)


def wait_for_step(process, output, step, seconds=120):
    """Until the log of a run in the background has so many lines."""
    log = output / "log.jsonl"
    for _ in range(50 * seconds):
        if log.is_file() and log.read_text().count("\n") >= step:
            return
        assert process.poll() is None, f"the run ended before step {step}"
        time.sleep(0.02)
    raise AssertionError(f"no step {step} within {seconds} s")


def log_of(output):
    return [json.loads(line) for line in (Path(output) / "log.jsonl").read_text().splitlines()]


def completions_of(output):
    return [json.loads(line) for line in (output / "completions.jsonl").read_text().splitlines()]


def alternate(path):
    """Every other row loses its image; of two ranks one then sees text only."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::2]:
        row["images"] = []
        row["messages"] = json.loads(json.dumps(row["messages"]).replace("<image>", ""))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
