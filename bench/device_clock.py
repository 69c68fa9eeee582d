"""Times calls by a GPU's own clock, launched by the host and replayed from a CUDA graph.

The host starts a call while the device is still busy. So its time is that of the device, unless
the host waits in the middle, or takes longer than the device by more than the head start. The L2
cache is overwritten before each call, because in a model other layers have used it in between.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = tuple[Callable[..., Any], Callable[[], tuple[tuple, dict]] | None]
"""A call, and what makes its arguments, or None."""
AHEAD_CYCLES = 2_000_000  # about a millisecond, in which the host launches the call
CAPTURE_WARMUPS = 3  # calls before a capture, which must not compile or choose algorithms


def seconds_in_turns(calls: list[Call], rounds: int) -> list[list[float]]:
    """Seconds of each call in every round; a round runs all of them."""
    for call in calls:
        _seconds(call)  # compiles
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for own, call in zip(times, calls, strict=True):
            own.append(_seconds(call))
    return times


def captured(run: Callable[[], Any]) -> Callable[[], None]:
    """Replays a call without arguments from a CUDA graph.

    Raises:
        RuntimeError: the call cannot be captured, for example as it waits for the device.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(CAPTURE_WARMUPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _seconds(call: Call) -> float:
    run, setup = call
    arguments, options = ((), {}) if setup is None else setup()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _larger_than_cache().zero_()
    torch.cuda._sleep(AHEAD_CYCLES)
    start.record()
    run(*arguments, **options)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


@functools.cache
def _larger_than_cache() -> Tensor:
    size = 2 * torch.cuda.get_device_properties(0).L2_cache_size
    return torch.empty(size, dtype=torch.int8, device="cuda")
