"""The interface of a benchmark: questions, a rule that scores answers, and summary scores."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from .prediction import Prediction, Verdict, scores_by_group
from .source import BenchmarkSource, Record


@dataclass(frozen=True)
class Question:
    """One question of a benchmark. Its images are not read yet."""

    id: str
    """Unique within the benchmark."""
    where: str
    """Data set and row, for error messages."""
    messages: list[dict[str, Any]]
    """Turns whose content is a list of {"type": "image"} and {"type": "text", "text": ...}."""
    images: tuple[str, ...]
    """Columns that hold the images, in the order of the image parts."""
    answer: str
    """Reference answer, as written in the benchmark."""
    kind: str
    """Kind of answer: choice, integer, float, list, free or yes_no."""
    options: tuple[str, ...] = ()
    """Options of a choice, in the order of their letters."""
    precision: int | None = None
    """Number of decimals of a float."""
    groups: dict[str, str] = field(default_factory=dict)
    """Groups for which scores are also reported: {"subject": "algebra", ...}."""
    asked: str = ""
    """Text of the question, for the judge."""
    details: str = ""
    """Explanation of the reference, for the judge; empty if there is only ``answer``."""
    accepted: tuple[str, ...] = ()
    """Further right answers; only the user's own rows have them."""

    @property
    def letters(self) -> str:
        """Letters of the options."""
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(self.options)]


Equal = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""Tells for each pair (answer, reference) whether both are mathematically equal."""


class Benchmark(Protocol):
    """A set of questions and the rule that scores them."""

    @property
    def name(self) -> str:
        """Name on the command line and in results."""
        ...

    @property
    def title(self) -> str:
        """Name for tables."""
        ...

    @property
    def rule(self) -> str:
        """How answers are scored, in a sentence for the result."""
        ...

    @property
    def official(self) -> str:
        """How the official rule differs."""
        ...

    @property
    def num_published(self) -> int | None:
        """Number of questions in the published split; None for the user's own rows."""
        ...

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        """Scores one completion per question.

        Args:
            questions: the questions.
            completions: the model's completion of each question.
            equal: compares answers as mathematics.
        """
        ...

    def tally(self, predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
        """(right, all) counts of each share whose mean is the score. The tallies of disjoint
        clusters add up to the tally of their union."""
        ...

    def cluster(self, prediction: Prediction) -> str:
        """Name of the cluster of a prediction. A resample draws or omits a cluster as a whole."""
        ...

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """{name: number}: first ``score``, the benchmark's main number from 0 to 1, then the other
        numbers that it reports."""
        ...


class Published(Benchmark, Protocol):
    """A benchmark with a data set on the Hub. Each has a file in benchmarks/."""

    @property
    def source(self) -> BenchmarkSource: ...

    def question(self, record: Record, where: str, style: str) -> Question:
        """Makes a question from a checked record without its images.

        Args:
            record: columns of the record.
            where: data set and row, for error messages.
            style: style of the prompt: tags, direct or official.

        Raises:
            RowError: a field has an invalid value.
        """
        ...


Dialogue = Generator[str, str, Verdict]
"""A generator that yields prompts for the judge, receives its replies, and returns the verdict."""


@runtime_checkable
class JudgedBenchmark(Protocol):
    """A benchmark whose official rule uses a judge. The judge is asked only about completions that
    this project's rule does not score as right."""

    def dialogue(self, question: Question, completion: str) -> Dialogue:
        """Starts the dialogue about a completion.

        Raises:
            JudgeError: a reply has another form than the prompt asks for.
        """
        ...


class ByQuestion:
    """Scoring of benchmarks whose main number is the share of right answers."""

    def tally(self, predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
        return [(sum(p.right for p in predictions), len(predictions))]

    def cluster(self, prediction: Prediction) -> str:
        return prediction.id

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        return scores_by_group(predictions)
