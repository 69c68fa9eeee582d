"""A benchmark together with its data: its questions, and the row of each question."""

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
    """The interface between the runner and a benchmark with data."""

    @property
    def benchmark(self) -> Benchmark: ...

    @property
    def path(self) -> str:
        """Hub name or path of the data."""
        ...

    @property
    def questions(self) -> list[Question]: ...

    def row(self, question: Question) -> Row:
        """The question as a row with references to its images.

        Raises:
            RowError: an image is missing.
        """
        ...


class BenchmarkTask:
    """A published benchmark with its data.

    Args:
        benchmark: schema, prompts and rule.
        local: folder with a copy of the data; None reads them from the Hub.
        settings: settings of the run.

    Raises:
        SourceError: the data cannot be read.
        RowError: a record is malformed, or an id occurs twice.
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
        values = self._records.images(self._index[question.id], question.images)
        images = [
            image_reference(image, question.where, column, Path())
            for image, column in zip(values, question.images, strict=True)
        ]
        return Row(question.where, question.messages, images, None, (), self.benchmark.name)


class RowsTask:
    """The user's own rows.

    Args:
        benchmark: rule that scores the rows.
        rows: the rows.
        path: hub name or path of the rows.
        settings: settings of the run.
    """

    def __init__(self, benchmark: OwnRows, rows: Rows, path: str, settings: Settings) -> None:
        self.benchmark, self.path, self._rows = benchmark, path, rows
        count = len(rows) if settings.limit is None else min(len(rows), settings.limit)
        self.questions = [benchmark.question(rows[i], str(i)) for i in range(count)]

    def row(self, question: Question) -> Row:
        return self._rows[int(question.id)]


def digest_of(questions: list[Question]) -> str:
    """Digest of the questions and their answers. Two runs with the same digest had the same
    data."""
    contents = [[q.id, q.messages, [q.answer, *q.accepted], q.options] for q in questions]
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
