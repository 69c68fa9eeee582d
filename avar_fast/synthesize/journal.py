"""Finished stages on disk: one JSON line each, synced before the next step, so that a run that was
killed goes on where it was."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from .ledger import Usage

NAME = "stages.jsonl"


@dataclass(frozen=True)
class Entry:
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


class Journal:
    """The append-only file; one process at a time."""

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
        self.entries: list[Entry] = []
        self._finished: dict[tuple[str, str, int], Entry] = {}
        try:
            entries, whole = _parse(self.path)
        except ValueError:
            self._file.close()
            raise
        self._file.truncate(whole)
        for entry in entries:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.text is not None:
            self._finished[entry.key, entry.stage, entry.sample] = entry

    def finished(self, key: str, stage: str, sample: int) -> Entry | None:
        """The outcome on disk, if the stage was finished."""
        return self._finished.get((key, stage, sample))

    def add(self, entry: Entry) -> None:
        """Writes an outcome; when this returns it survives a crash of the machine."""
        self._file.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(entry)

    def close(self) -> None:
        self._file.close()


def read_entries(folder: Path) -> list[Entry]:
    """What a folder's journal holds, without opening it for writing; nothing where there is none.

    Raises:
        ValueError: as ``Journal``.
    """
    path = folder / NAME
    return _parse(path)[0] if path.is_file() else []


def _parse(path: Path) -> tuple[list[Entry], int]:
    """The whole lines of a journal, and their length in bytes."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    entries = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            fields = json.loads(line)
            usage, problems = Usage(**fields.pop("usage")), tuple(fields.pop("problems"))
            entries.append(Entry(**fields, usage=usage, problems=problems))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} line {number} must be a finished stage; {error}. Take the line out; its"
                " stage is then asked again."
            ) from None
    return entries, whole
