"""How far a run has come, where nobody watches."""

import io

import pytest

from avar_fast import progress as module
from avar_fast.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def lines(stream):
    return [line for line in stream.getvalue().split("\n") if line]


def test_a_file_gets_a_line_in_thirty_seconds_at_most(clock, monkeypatch):
    """It got several a second, one behind the other on one line."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress(total=100, desc="rows") as bar:
        for _ in range(100):
            clock[0] += 1.0
            bar.update()
            bar.set_postfix(usd="1.00", failed=0)
    assert "\r" not in stream.getvalue()
    assert [line[:9] for line in lines(stream)] == [
        "rows:   0",
        "rows:  30",
        "rows:  60",
        "rows:  90",
        "rows: 100",
    ]
    assert all("usd=1.00, failed=0" in line for line in lines(stream)[2:])


@pytest.mark.parametrize(("leave", "count"), [(True, 2), (False, 0)])
def test_a_short_loop_says_where_it_begins_and_ends_or_nothing(clock, monkeypatch, leave, count):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(range(50), desc="reading", leave=leave)) == list(range(50))
    assert len(lines(stream)) == count
    assert list(progress(range(3), disable=True)) == [0, 1, 2]
    assert len(lines(stream)) == count


def test_a_terminal_has_a_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(range(3), desc="rows")) == [0, 1, 2]
    assert "\rrows: 100%" in stream.getvalue()
