"""The result of a run: a JSON file with the scores of each benchmark and every prediction."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..journal import write_whole
from ..vas import FORMS
from .benchmark import JudgedBenchmark
from .judge.config import JudgeConfig
from .prediction import Prediction
from .prompt_vas import Table, TableSums
from .tasks import EvalTask, digest_of

FORMAT = 2
MOST_REASONS = 3


@dataclass(frozen=True)
class BenchmarkSummary:
    """Scores of one benchmark in one run. Scores and shares are from 0 to 1."""

    title: str
    score: float
    """The benchmark's main number."""
    scores: dict[str, float]
    """Other numbers that the benchmark reports, and accuracy by group."""
    num: int
    """Number of questions in this run."""
    num_published: int | None
    """Number of questions in the published split. A smaller ``num`` means that the run covers a
    part of it. None for the user's own rows."""
    unparsable: float
    """Share of completions in which no answer was found. They count as wrong."""
    truncated: float
    """Share of completions cut at max_new_tokens."""
    num_unread: int
    """Number of questions that could not be asked, for example because of a damaged image. They
    count as wrong."""
    mean_tokens: float
    """Mean number of tokens in a completion."""
    vas: dict[str, float]
    """{form: VAS}, the mean over layers, heads and the user tokens of all questions that see the
    image; eps 1e-6. Empty if VAS was not measured."""
    vas_layers: list[int]
    """The text layers with attention, by their index in the model: the rows of ``vas_table``. Empty
    if VAS was not measured."""
    vas_table: dict[str, Table]
    """{form: VAS per layer and head}"""
    rule: str
    """How this project scores answers."""
    official: str
    """How the official rule differs."""
    data: str
    """Hub name or path of the data."""
    digest: str
    """Digest of the questions and their answers."""
    judge: dict[str, Any] | None = None
    """The judge, if one was used: its ``model``, ``host`` and ``body``; the numbers of answers that
    it was ``asked`` about, that are ``right``, and that ``failed``; and ``reasons``, the most
    frequent failures as {reason: number of answers}."""


def summarize(
    task: EvalTask,
    predictions: Sequence[Prediction],
    table: TableSums,
    judge: JudgeConfig | None = None,
) -> BenchmarkSummary:
    """Summarizes all predictions of a benchmark.

    Args:
        task: benchmark that was evaluated.
        predictions: predictions of all ranks, in the order of the questions.
        table: sums of the VAS per layer and head.
        judge: judge of the run; None for no judge.
    """
    benchmark = task.benchmark
    scores = benchmark.scores(predictions)
    asked = [p for p in predictions if p.error is None]
    num_queries = sum(p.num_queries for p in predictions)
    vas = {
        form: sum(p.vas[form] * p.num_queries for p in predictions if p.vas) / num_queries
        for form in FORMS
        if num_queries
    }
    return BenchmarkSummary(
        title=benchmark.title,
        score=scores["score"],
        scores={name: value for name, value in scores.items() if name != "score"},
        num=len(predictions),
        num_published=benchmark.num_published,
        unparsable=_share([p.parsed is None for p in asked]),
        truncated=_share([p.truncated for p in asked]),
        num_unread=len(predictions) - len(asked),
        mean_tokens=sum(p.num_tokens for p in asked) / max(len(asked), 1),
        vas=vas,
        vas_layers=list(table.layers),
        vas_table=table.means(),
        rule=benchmark.rule,
        official=benchmark.official,
        data=task.path,
        digest=digest_of(task.questions),
        judge=None
        if judge is None or not isinstance(benchmark, JudgedBenchmark)
        else judge.name | _count_judgments(predictions),
    )


def _count_judgments(predictions: Sequence[Prediction]) -> dict[str, Any]:
    asked = [p for p in predictions if p.judge_replies is not None]
    failed = Counter(p.judge_error for p in asked if p.judge_error is not None)
    return {
        "asked": len(asked),
        "right": sum(p.right for p in asked),
        "failed": failed.total(),
        "reasons": dict(failed.most_common(MOST_REASONS)),
    }


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def write_json(
    out: Path,
    head: Mapping[str, Any],
    summaries: Mapping[str, BenchmarkSummary],
    predictions: Sequence,
) -> None:
    """Writes the result file atomically."""
    body = {
        "format": FORMAT,
        **head,
        "benchmarks": {name: asdict(summary) for name, summary in summaries.items()},
        "predictions": [prediction.as_dict() for prediction in predictions],
    }
    write_whole(out, [json.dumps(body, indent=1)])


@dataclass(frozen=True)
class Result:
    """A result file that has been read."""

    path: str
    head: dict[str, Any]
    """Model, commit, settings and other facts about the run."""
    benchmarks: dict[str, BenchmarkSummary]
    predictions: list[Prediction]

    @property
    def scores(self) -> dict[str, float]:
        return {name: summary.score for name, summary in self.benchmarks.items()}


def read_result(path: str | Path) -> Result:
    """Reads a result file.

    Raises:
        ValueError: the file is not a result of this program.
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"a result must be an existing JSON file; {path} is not.")
    try:
        body = json.loads(Path(path).read_text())
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']}, this program reads {FORMAT}")
        summaries = {
            name: BenchmarkSummary(**values) for name, values in body.pop("benchmarks").items()
        }
        predictions = [Prediction(**values) for values in body.pop("predictions")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be a result of python -m avar_fast.evaluate; {error}."
        ) from error
    return Result(str(path), body, summaries, predictions)
