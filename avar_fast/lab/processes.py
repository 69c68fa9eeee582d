"""Runs the parts of a study, each in a process of its own with one thread."""

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
    "avar_fast.train.setup",
    "avar_fast.train.sft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
)


def make_all(
    title: str, tasks: Sequence[Callable[[], None]], jobs: int, preloaded: Sequence[str] = ()
) -> None:
    """Runs the tasks, so many at a time. Exits the program after the first that fails, or when it
    is interrupted; a task ends with the program.

    Args:
        title: of the tasks, for the bar.
        tasks: functions without arguments that can be pickled.
        jobs: tasks at a time.
        preloaded: modules that the tasks need, besides those of training.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    # They are forks of one that has imported all modules, and has run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preloaded, *PRELOADED])
    stopped = threading.Event()

    def run(task: Callable[[], None]) -> bool:
        if stopped.is_set():
            return False
        process = context.Process(target=_quietly, args=(task,))
        process.start()
        process.join()
        if process.exitcode:
            stopped.set()  # no further part is begun
        return process.exitcode == 0

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in progress(pool.map(run, tasks), desc=title, total=len(tasks)):
                if not done:
                    sys.exit(f"error: {title}: a part failed; its message is above.")
        except KeyboardInterrupt:
            sys.exit(f"error: {title}: interrupted.")
        finally:
            stopped.set()


def _quietly(task: Callable[[], None]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    try:
        task()
    except KeyboardInterrupt:  # the program says so
        sys.exit(130)


def _end_with_parent() -> None:
    """A program that is killed leaves no part behind that would go on writing into its folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
