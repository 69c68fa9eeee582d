"""Runs the parts of a study side by side, each in a process of its own, as a process can train only
once."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers.utils import logging as transformers_logging

from ..progress import progress

PRELOADED = (
    "avar_fast.lab.walk_study_parts",
    "avar_fast.train.setup",
    "avar_fast.train.sft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
)


def make_all(title: str, tasks: Sequence[Callable[[], None]], jobs: int) -> None:
    """Runs the tasks, so many at a time, with one thread each. Exits the program where one fails;
    no further one is begun then."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes of the pool
    # Its processes are forks of one that has imported all modules, and has run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    stopped = threading.Event()

    def run(task: Callable[[], None]) -> bool:
        if stopped.is_set():
            return False
        process = context.Process(target=_quietly, args=(task,))
        process.start()
        process.join()
        if process.exitcode:
            stopped.set()
        return process.exitcode == 0

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in progress(pool.map(run, tasks), desc=title, total=len(tasks)):
                if not done:
                    sys.exit(f"error: {title}: a part failed; its message is above.")
        finally:
            stopped.set()


def _quietly(task: Callable[[], None]) -> None:
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    task()
