"""The journal of finished steps: one JSON line each, synced before the next step starts. A run that
was killed resumes from it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..journal import Journal, whole_lines
from .ledger import Usage

NAME = "steps.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """The outcome of one request."""

    key: str
    """Key of the row."""
    step: str
    """describe, reason or rewrite."""
    sample: int
    """Number of the sample. It is 0 for describe, which all samples of a row share."""
    text: str | None
    """The model's text; null if the request failed permanently. The next run then asks again."""
    finish: str
    """stop, length or refused; the problem if there is no text."""
    model: str
    prompt: str
    """Version of the prompt."""
    usage: Usage
    """Tokens of all attempts."""
    cost: float
    """Cost of all attempts in USD."""
    attempts: int
    seconds: float
    problems: tuple[str, ...] = ()
    """Problems of the failed attempts."""


class StepJournal:
    """The outcomes of all requests so far. Only one process at a time may open it. Texts stay on
    disk until they are read."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            BlockingIOError: another process writes to the folder.
            ValueError: a line is not a valid entry.
        """
        self.path = folder / NAME
        try:
            self._journal = Journal(self.path, exclusive=True)
        except BlockingIOError:
            raise BlockingIOError(
                f"output_dir must be used by one run at a time; another one writes to {folder}."
            ) from None
        self.entries: list[StepRecord] = []
        """Every outcome so far. A text is replaced by an empty one."""
        self._places: dict[tuple[str, str, int], tuple[int, int]] = {}
        try:
            for entry, start, length in _parse(self.path):
                self._take(entry, start, length)
        except ValueError:
            self.close()
            raise

    def _take(self, entry: StepRecord, start: int, length: int) -> None:
        if entry.text is not None:
            self._places[entry.key, entry.step, entry.sample] = (start, length)
            entry = replace(entry, text="")
        self.entries.append(entry)

    def finished(self, key: str, step: str, sample: int) -> StepRecord | None:
        """Reads the outcome of a step from disk; None if the step is not finished."""
        place = self._places.get((key, step, sample))
        return None if place is None else _entry(self._journal.read(*place))

    def add(self, entry: StepRecord) -> None:
        """Writes and syncs an outcome. It then survives a crash of the machine."""
        self._take(entry, *self._journal.add(asdict(entry)))

    def close(self) -> None:
        self._journal.close()


def read_entries(folder: Path) -> list[StepRecord]:
    """Reads the entries of a folder's journal without opening it for writing; an empty list if
    there is no journal.

    Raises:
        ValueError: as ``StepJournal``.
    """
    path = folder / NAME
    return [entry for entry, *_ in _parse(path)] if path.is_file() else []


def _parse(path: Path) -> Iterator[tuple[StepRecord, int, int]]:
    """Yields (entry, start, length) of each complete line; start and length are in bytes."""
    for number, start, content in whole_lines(path):
        try:
            yield _entry(content), start, len(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} line {number} must be a finished step; {error}. Take the line out;"
                " its step is then asked again."
            ) from None


def _entry(line: bytes) -> StepRecord:
    fields = json.loads(line)
    usage, problems = Usage(**fields.pop("usage")), tuple(fields.pop("problems"))
    return StepRecord(**fields, usage=usage, problems=problems)
