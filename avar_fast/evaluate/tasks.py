"""A benchmark with its data at hand: questions by number, and the rows that a model is asked."""

import hashlib
import json
from pathlib import Path
from typing import Protocol

from ..data import Row, Rows
from ..data.images import image_reference
from ..data.problems import bad_row
from .benchmark import Benchmark, Published, Question
from .benchmarks.rows import OwnRows
from .settings import Settings
from .source import Records


class EvalTask(Protocol):
    """What the runner needs of a benchmark."""

    @property
    def benchmark(self) -> Benchmark: ...

    @property
    def path(self) -> str:
        """Where the data come from."""
        ...

    @property
    def questions(self) -> list[Question]: ...

    def row(self, question: Question) -> Row:
        """The question as a row, its images referenced; RowError where one is not there."""
        ...


class BenchmarkTask:
    """A published benchmark.

    Raises:
        SourceError: its data cannot be read.
        RowError: a record that is not what it should be, or an id that is there twice.
    """

    def __init__(self, benchmark: Published, local: str | None, settings: Settings) -> None:
        self.benchmark: Benchmark = benchmark
        self._records = Records(benchmark.name, benchmark.source, local)
        self.path = self._records.path
        self.questions: list[Question] = []
        self._index: dict[str, int] = {}
        for i in range(len(self._records)):
            if len(self.questions) == settings.limit:
                break
            where = self._records.where(i)
            question = benchmark.question(self._records.texts(i), where, settings.style)
            if question.id in self._index:
                got = f"{question.id} is that of an earlier row too"
                raise bad_row(where, "the id", "be there once", got)
            self._index[question.id] = i
            self.questions.append(question)

    def row(self, question: Question) -> Row:
        held = self._records.images(self._index[question.id], question.images)
        images = [
            image_reference(image, question.where, column, Path())
            for image, column in zip(held, question.images, strict=True)
        ]
        return Row(question.where, question.messages, images, None, (), self.benchmark.name)


class RowsTask:
    """Rows of one's own."""

    def __init__(self, benchmark: OwnRows, rows: Rows, path: str, settings: Settings) -> None:
        self.benchmark, self.path, self._rows = benchmark, path, rows
        count = len(rows) if settings.limit is None else min(len(rows), settings.limit)
        self.questions = [benchmark.question(rows[i], str(i)) for i in range(count)]

    def row(self, question: Question) -> Row:
        return self._rows[int(question.id)]


def digest_of(questions: list[Question]) -> str:
    """Of what is asked and what is right, so that two runs can tell whether they had the same."""
    asked = [[q.id, q.messages, [q.answer, *q.accepted], q.options] for q in questions]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
