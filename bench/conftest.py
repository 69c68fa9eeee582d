"""CSV rows of every suite, and at the end the reasons why rivals did not run."""

import time

import pytest
import torch

from . import broken_amx
from .measure import Table, quantiles
from .rivals import CANNOT_RUN

NOTE = broken_amx.avoid()


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
    """

    def time_it(run, rounds, work=None, peak=None, setup=None, anchor=None, **case):
        benchmark.group = f"{case['op']} {case['mode']} L={case['length']} {case['dtype']}"
        anchor_seconds = []

        def prepare():
            if anchor is not None:
                call, ready = anchor
                arguments = ((), {}) if ready is None else ready()
                start = time.perf_counter()
                call(*arguments[0], **arguments[1])
                anchor_seconds.append(time.perf_counter() - start)
            return None if setup is None else setup()

        benchmark.pedantic(run, setup=prepare, rounds=rounds, warmup_rounds=1)
        if benchmark.disabled:
            return None
        seconds = list(benchmark.stats.stats.data)
        percent = None
        if work is not None:
            percent = 100 * work / peak / quantiles(seconds)[1]
            benchmark.extra_info["roofline_percent"] = round(percent, 1)
        milliseconds = quantiles([1e3 * s for s in seconds])
        table.add(milliseconds, percent, metric="time", unit="ms", **case)
        if anchor is not None:
            pairs = zip(seconds, anchor_seconds[-rounds:], strict=True)
            ratios = quantiles([own / anchor_time for own, anchor_time in pairs])
            benchmark.extra_info["over_anchor"] = round(ratios[1], 2)
            table.add(ratios, None, metric="time_over_anchor", unit="x", **case)
        return milliseconds

    return time_it


@pytest.fixture(autouse=True)
def _same_seed():
    torch.manual_seed(0)


def pytest_report_header():
    return NOTE or None


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("rivals that cannot run here")
    for name, reason in sorted(CANNOT_RUN.items()):
        terminalreporter.write_line(f"{name}: {reason}")
