"""Finished steps on disk: one JSON line each, synced before the next step, so that a run that was
killed goes on where it was."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..journal import Journal, whole_lines
from .ledger import Usage

NAME = "steps.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """One request's outcome."""

    key: str
    """Of the row."""
    step: str
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
    """The outcomes of all requests so far; one process at a time. Texts stay on disk until they
    are asked for."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            BlockingIOError: another process writes to the folder.
            ValueError: a line that is no entry.
        """
        self.path = folder / NAME
        try:
            self._journal = Journal(self.path, exclusive=True)
        except BlockingIOError:
            raise BlockingIOError(
                f"output_dir must be used by one run at a time; another one writes to {folder}."
            ) from None
        self.entries: list[StepRecord] = []
        """Every outcome so far, with an empty text where there is one."""
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
        """The outcome on disk, if the step was finished."""
        place = self._places.get((key, step, sample))
        return None if place is None else _entry(self._journal.read(*place))

    def add(self, entry: StepRecord) -> None:
        """Writes an outcome; it survives a crash of the machine from then on."""
        self._take(entry, *self._journal.add(asdict(entry)))

    def close(self) -> None:
        self._journal.close()


def read_entries(folder: Path) -> list[StepRecord]:
    """What a folder's journal holds, without opening it for writing; nothing where there is none.

    Raises:
        ValueError: as ``StepJournal``.
    """
    path = folder / NAME
    return [entry for entry, *_ in _parse(path)] if path.is_file() else []


def _parse(path: Path) -> Iterator[tuple[StepRecord, int, int]]:
    """The entries of the whole lines of a journal, each with its start and length in bytes."""
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
