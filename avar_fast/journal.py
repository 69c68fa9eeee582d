"""Files that survive a kill: lines that are on disk at once, and files written whole."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A whole line of a journal."""

    number: int
    """Counted from 1."""
    start: int
    """Offset in bytes."""
    content: bytes


class Journal:
    """A file that grows by JSON lines. A last line that a kill cut off is removed on opening.

    Args:
        path: of the file, which is made if it is missing.
        exclusive: only one process may hold it open.

    Raises:
        BlockingIOError: exclusive, and another process holds it.
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
        """Writes a line; it survives a crash of the machine from then on.

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
        """A line by its place."""
        return os.pread(self._file.fileno(), length, start)

    def close(self) -> None:
        self._file.close()


def whole_lines(path: Path) -> Iterator[Line]:
    """The lines of a journal, without a last one that a kill cut off."""
    start = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if not content.endswith(b"\n"):
                return
            yield Line(number, start, content)
            start += len(content)


def write_whole(path: Path, pieces: Iterable[str]) -> None:
    """Writes a file so that a reader sees the old or the new one whole, even after a kill."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which two runs differ, sorted."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
