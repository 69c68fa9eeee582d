"""Shows the progress of long loops: a bar in a terminal, lines in a file."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    desc: str | None = None,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    leave: bool = True,
    disable: bool = False,
) -> Any:
    """Returns tqdm's bar if stderr is a terminal. Otherwise it returns an object with the same
    methods that prints a line at the start, at the end, and every ``SECONDS_BETWEEN_LINES``.

    Args:
        iterable: items to count; None if the caller updates the bar.
        desc, total, initial, unit: as in tqdm.
        leave: keep the bar when it is done. If false, a file gets lines only if the loop takes
            longer than ``SECONDS_BETWEEN_LINES``.
        disable: show nothing.
    """
    shared = {"desc": desc, "total": total, "initial": initial, "unit": unit, "leave": leave}
    if disable or sys.stderr.isatty():
        return tqdm(iterable, dynamic_ncols=True, disable=disable, **shared)
    return _Lines(iterable, **shared)


class _Lines:
    """The part of tqdm's interface that this project uses, printed in lines."""

    def __init__(
        self,
        iterable: Iterable[Any] | None,
        desc: str | None,
        total: int | None,
        initial: int,
        unit: str,
        leave: bool,
    ) -> None:
        self._iterable, self._desc, self._unit, self._leave = iterable, desc, unit, leave
        self.total = len(iterable) if total is None and hasattr(iterable, "__len__") else total  # pyright: ignore[reportArgumentType]
        self.n = self._initial = initial
        self._postfix = ""
        self._started = self._last = time.monotonic()
        self._closed = False
        if leave:
            self._print()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        assert self._iterable is not None
        try:
            for item in self._iterable:
                yield item
                self.update()
        finally:
            self.close()

    def update(self, n: int = 1) -> None:
        self.n += n
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._print()

    def set_postfix(self, **values: object) -> None:
        self.set_postfix_str(", ".join(f"{name}={value}" for name, value in values.items()))

    def set_postfix_str(self, text: str) -> None:
        self._postfix = text

    def close(self) -> None:
        if not self._closed and (self._leave or self._last > self._started):
            self._print()
        self._closed = True

    def _print(self) -> None:
        self._last = time.monotonic()
        line = tqdm.format_meter(
            self.n,
            self.total,  # pyright: ignore[reportArgumentType]
            self._last - self._started,
            prefix=self._desc or "",
            unit=self._unit,
            postfix=self._postfix,
            initial=self._initial,
            ncols=0,
        )
        tqdm.write(line, file=sys.stderr)
