"""Files that survive a killed process: journals of synced lines, and atomically written files."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A complete line of a journal."""

    number: int
    """Line number, from 1."""
    start: int
    """Offset in the file in bytes."""
    content: bytes
    """The line, with its line break."""


class Journal:
    """A file of JSON lines that only grows. Opening it removes an incomplete last line.

    Args:
        path: the file; it is created if it is missing.
        exclusive: allow only one process at a time to open the file.

    Raises:
        BlockingIOError: ``exclusive`` is set and another process has the file open.
    """

    def __init__(self, path: Path, exclusive: bool = False) -> None:
        self.path = path
        self._file = path.open("a+b")
        if exclusive:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise
        self._end = sum(len(line.content) for line in whole_lines(path))
        self._file.truncate(self._end)

    def add(self, value: Any) -> tuple[int, int]:
        """Appends a line and syncs it. It then survives a crash of the machine.

        Returns:
            (start, length) of the line in bytes, for ``read``.
        """
        line = json.dumps(value).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        start, self._end = self._end, self._end + len(line)
        return start, len(line)

    def read(self, start: int, length: int) -> bytes:
        """Reads the line at an offset and of a length in bytes."""
        return os.pread(self._file.fileno(), length, start)

    def close(self) -> None:
        self._file.close()


def whole_lines(path: Path) -> Iterator[Line]:
    """Yields the complete lines of a journal. An incomplete last line is left out."""
    start = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if not content.endswith(b"\n"):
                return
            yield Line(number, start, content)
            start += len(content)


def write_whole(path: Path, pieces: Iterable[str]) -> None:
    """Replaces a file atomically. A reader sees either the whole old or the whole new file, even
    if the process is killed."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sorted names of the settings in which two runs differ."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
