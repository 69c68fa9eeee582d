"""CSV rows of every suite, and at the end why some rivals did not run."""

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
    """record(run, rounds, flops, peak, **case): times ``run`` and keeps one row."""

    def time_it(run, rounds, work=None, peak=None, setup=None, **case):
        benchmark.group = f"{case['op']} {case['mode']} L={case['length']} {case['dtype']}"
        benchmark.pedantic(run, setup=setup, rounds=rounds, warmup_rounds=1)
        if benchmark.disabled:
            return
        seconds = list(benchmark.stats.stats.data)
        percent = None
        if work is not None:
            percent = 100 * work / peak / quantiles(seconds)[1]
            benchmark.extra_info["roofline_percent"] = round(percent, 1)
        milliseconds = quantiles([1e3 * s for s in seconds])
        table.add(milliseconds, percent, metric="time", unit="ms", **case)

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
