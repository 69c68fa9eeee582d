"""Times of several calls that run in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from .. import device_clock
from ..measure import peak_flops
from ..shapes import DEVICE


def milliseconds_in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """Median time of each call on the device (on the host, without a device), in milliseconds.

    One round makes every call once, so that a change of clocks or of the machine's load meets all.
    """
    if DEVICE == "cuda":
        seconds = device_clock.seconds_in_turns([(call, None) for call in calls.values()], rounds)
    else:
        for call in calls.values():
            call()
        in_rounds = [[_host_seconds(call) for call in calls.values()] for _ in range(rounds)]
        seconds = zip(*in_rounds, strict=True)
    return {name: 1e3 * statistics.median(own) for name, own in zip(calls, seconds, strict=True)}


def percent_of_matmul(flops: float, milliseconds: float, dtype: torch.dtype) -> float | None:
    """FLOP/s as a share of the best matrix product measured here; None without a device."""
    if DEVICE != "cuda":
        return None
    return round(1e5 * flops / milliseconds / peak_flops(dtype), 1)


def _host_seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
