"""Finished stages on disk: one JSON line each, synced before the next step, so that a run that was
killed goes on where it was."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .ledger import Usage

NAME = "stages.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """One request's outcome."""

    key: str
    """Of the row."""
    stage: str
    sample: int
    """0 for describe, which all samples of a row share."""
    text: str | None
    """What the model wrote; null where the request failed for good, which is asked again by the
    next run."""
    finish: str
    """stop, length or refused; what went wrong where there is no text."""
    model: str
    prompt: str
    """Version of the prompt."""
    usage: Usage
    """Of all attempts."""
    cost: float
    """USD."""
    attempts: int
    seconds: float
    problems: tuple[str, ...] = ()
    """What attempts before the last ran into."""


class StepJournal:
    """The append-only file; one process at a time. Texts stay on disk until they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates the file; a last line that was cut off by a kill is taken out.

        Raises:
            BlockingIOError: another process writes to it.
            ValueError: a line that is no entry, other than a cut last one.
        """
        self.path = folder / NAME
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BlockingIOError(
                f"output_dir must be used by one run at a time; another one writes to {folder}."
            ) from None
        self.entries: list[StepRecord] = []
        """Every outcome so far, with an empty text where there is one."""
        self._places: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._end = 0
        try:
            for entry, length in _parse(self.path):
                self._take(entry, length)
        except ValueError:
            self._file.close()
            raise
        self._file.truncate(self._end)

    def _take(self, entry: StepRecord, length: int) -> None:
        if entry.text is not None:
            self._places[entry.key, entry.stage, entry.sample] = (self._end, length)
            entry = replace(entry, text="")
        self.entries.append(entry)
        self._end += length

    def finished(self, key: str, stage: str, sample: int) -> StepRecord | None:
        """The outcome on disk, if the stage was finished."""
        place = self._places.get((key, stage, sample))
        if place is None:
            return None
        return _entry(os.pread(self._file.fileno(), place[1], place[0]))

    def add(self, entry: StepRecord) -> None:
        """Writes an outcome; when this returns it survives a crash of the machine."""
        line = json.dumps(asdict(entry)).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(entry, len(line))

    def close(self) -> None:
        self._file.close()


def read_entries(folder: Path) -> list[StepRecord]:
    """What a folder's journal holds, without opening it for writing; nothing where there is none.

    Raises:
        ValueError: as ``StepJournal``.
    """
    path = folder / NAME
    return [entry for entry, _ in _parse(path)] if path.is_file() else []


def _parse(path: Path) -> Iterator[tuple[StepRecord, int]]:
    """The entries of the whole lines of a journal, each with its length in bytes."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _entry(line), len(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path} line {number} must be a finished stage; {error}. Take the line out;"
                    " its stage is then asked again."
                ) from None


def _entry(line: bytes) -> StepRecord:
    fields = json.loads(line)
    usage, problems = Usage(**fields.pop("usage")), tuple(fields.pop("problems"))
    return StepRecord(**fields, usage=usage, problems=problems)
