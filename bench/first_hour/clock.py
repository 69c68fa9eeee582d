"""Times of several calls that run in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from ..shapes import DEVICE


def milliseconds_in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """Median time of each call on the device (host, without one), in milliseconds.

    One round makes every call once, so that a change of clocks or of the machine's load meets all.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # compiles what is to be compiled
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_cuda(call) if DEVICE == "cuda" else _host(call))
    return {name: statistics.median(values) for name, values in times.items()}


def _cuda(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    # The device is kept busy while the host launches, so that host time does not count.
    torch.cuda._sleep(1_000_000)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _host(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
