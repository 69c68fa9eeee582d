"""CSV rows of every suite, and at the end the reasons why rivals did not run."""

import time

import pytest
import torch

from . import broken_amx, device_clock
from .measure import Table, quantiles
from .rivals import CANNOT_RUN
from .shapes import DEVICE

NOTE = broken_amx.avoid()
NO_GRAPH: dict[str, str] = {}  # calls that no CUDA graph can contain, and why not


@pytest.fixture(scope="module")
def table(request):
    """The CSV file of the module's suite, written when the module is done."""
    table = Table(request.module.__name__.rpartition(".")[2].removeprefix("test_"))
    yield table
    table.write()


@pytest.fixture
def record(table, benchmark):
    """record(run, rounds, flops, peak, anchor=..., **case): times ``run`` and keeps its rows.

    Returns p20, p50, p80 in milliseconds, or None with --benchmark-disable.

    An anchor is a call and its own setup (or None). Each round runs it right before ``run``. The
    ratio of the two times is recorded too, because it can be trusted on a noisy machine.

    On a GPU the times are the device's. With ``graph``, a row "graph_time" has those of a replay
    from a CUDA graph.
    """

    def time_it(run, rounds, work=None, peak=None, setup=None, anchor=None, graph=False, **case):
        benchmark.group = f"{case['op']} {case['mode']} L={case['length']} {case['dtype']}"
        calls = [(run, setup)] if anchor is None else [anchor, (run, setup)]
        seconds_of = _by_device if DEVICE == "cuda" else _by_host
        *anchor_seconds, seconds = seconds_of(benchmark, calls, rounds)
        if benchmark.disabled:
            return None
        percent = None
        if work is not None:
            percent = 100 * work / peak / quantiles(seconds)[1]
            benchmark.extra_info["roofline_percent"] = round(percent, 1)
        milliseconds = quantiles([1e3 * s for s in seconds])
        table.add(milliseconds, percent, metric="time", unit="ms", **case)
        if anchor is not None:
            pairs = zip(seconds, *anchor_seconds, strict=True)
            ratios = quantiles([own / anchor_time for own, anchor_time in pairs])
            benchmark.extra_info["over_anchor"] = round(ratios[1], 2)
            table.add(ratios, None, metric="time_over_anchor", unit="x", **case)
        if graph and DEVICE == "cuda":
            _record_graph(table, run, rounds, case)
        return milliseconds

    return time_it


def _by_host(benchmark, calls, rounds):
    """Seconds of each call in every round, by the host's clock; the last call is the benchmark."""
    *anchors, (run, setup) = calls
    anchor_seconds = [[] for _ in anchors]

    def prepare():
        for own, (call, ready) in zip(anchor_seconds, anchors, strict=True):
            arguments = ((), {}) if ready is None else ready()
            start = time.perf_counter()
            call(*arguments[0], **arguments[1])
            own.append(time.perf_counter() - start)
        return None if setup is None else setup()

    benchmark.pedantic(run, setup=prepare, rounds=rounds, warmup_rounds=1)
    seconds = [] if benchmark.disabled else list(benchmark.stats.stats.data)
    return [*(own[-rounds:] for own in anchor_seconds), seconds]


def _by_device(benchmark, calls, rounds):
    """The same by the device's clock; pytest-benchmark's own table has one round by the host's."""
    run, setup = calls[-1]
    benchmark.pedantic(run, setup=setup, rounds=1, warmup_rounds=1)
    if benchmark.disabled:
        return [[] for _ in calls]
    return device_clock.seconds_in_turns(calls, rounds)


def _record_graph(table, run, rounds, case):
    try:
        replay = device_clock.captured(run)
    except RuntimeError as error:
        torch.cuda.synchronize()
        NO_GRAPH[f"{case['provider']}, {case['mode']}"] = str(error).partition("\n")[0]
        return
    (seconds,) = device_clock.seconds_in_turns([(replay, None)], rounds)
    milliseconds = quantiles([1e3 * s for s in seconds])
    table.add(milliseconds, None, metric="graph_time", unit="ms", **case)


@pytest.fixture(autouse=True)
def _same_seed():
    torch.manual_seed(0)


def pytest_report_header():
    return NOTE or None


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("rivals that cannot run here")
    for name, reason in sorted(CANNOT_RUN.items()):
        terminalreporter.write_line(f"{name}: {reason}")
    for name, reason in sorted(NO_GRAPH.items()):
        terminalreporter.write_line(f"{name}: not in a CUDA graph: {reason}")
