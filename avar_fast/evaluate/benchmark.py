"""What a benchmark is: questions, a rule that says which answers are right, and scores."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from .prediction import Prediction, Verdict, scores_by_group
from .source import BenchmarkSource, Record


@dataclass(frozen=True)
class Question:
    """One item of a benchmark, its images not read yet."""

    id: str
    """Unique within the benchmark."""
    where: str
    """Data set and row, for messages."""
    messages: list[dict[str, Any]]
    """Turns whose content is a list of {"type": "image"} and {"type": "text", "text": ...}."""
    images: tuple[str, ...]
    """Columns that hold the images, in the order of the image parts."""
    answer: str
    """The reference, as the benchmark has it."""
    kind: str
    """What is asked for: choice, integer, float, list, free, yes_no."""
    options: tuple[str, ...] = ()
    """Of a choice, in the order of their letters."""
    precision: int | None = None
    """Decimals of a float."""
    groups: dict[str, str] = field(default_factory=dict)
    """What scores are broken down by: {"subject": "algebra", ...}."""
    asked: str = ""
    """The question in words, for a judge."""
    details: str = ""
    """The reference in words, for a judge; empty where ``answer`` is all there is."""
    accepted: tuple[str, ...] = ()
    """Further answers that are right, of rows of one's own."""

    @property
    def letters(self) -> str:
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(self.options)]


Equal = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""(given, reference) pairs -> whether they are mathematically equal."""


class Benchmark(Protocol):
    """What is asked for and how it is scored."""

    @property
    def name(self) -> str:
        """As on the command line and in results."""
        ...

    @property
    def title(self) -> str: ...

    @property
    def rule(self) -> str:
        """How answers are scored, in a sentence; goes into the result."""
        ...

    @property
    def official(self) -> str:
        """How the official rule differs."""
        ...

    @property
    def num_published(self) -> int | None:
        """Questions of the whole split."""
        ...

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]: ...

    def tally(self, predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
        """(right, all) of each share that the score is the mean of; of all predictions, or of some
        clusters, whose tallies add up to it."""
        ...

    def cluster(self, prediction: Prediction) -> str:
        """What a resample of the questions takes or leaves together."""
        ...

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """``score``, the benchmark's number from 0 to 1, first; then what else it reports."""
        ...


class Published(Benchmark, Protocol):
    """A benchmark with a data set on the Hub. Each has a file in benchmarks/."""

    @property
    def source(self) -> BenchmarkSource: ...

    def question(self, record: Record, where: str, style: str) -> Question:
        """A checked record, without its images, as a question.

        Raises:
            RowError: a field that does not hold what it should.
        """
        ...


Dialogue = Generator[str, str, Verdict]
"""Yields what a judge is asked, is sent its replies, and returns the verdict they lead to."""


@runtime_checkable
class JudgedBenchmark(Protocol):
    """A benchmark whose official rule asks a language model; it is asked for the completions in
    which this project's rule finds no right answer."""

    def dialogue(self, question: Question, completion: str) -> Dialogue:
        """
        Raises:
            JudgeError: on a reply that is not what was asked for.
        """
        ...


class ByQuestion:
    """Scoring of benchmarks whose number is the share of right answers."""

    def tally(self, predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
        return [(sum(p.right for p in predictions), len(predictions))]

    def cluster(self, prediction: Prediction) -> str:
        return prediction.id

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        return scores_by_group(predictions)
