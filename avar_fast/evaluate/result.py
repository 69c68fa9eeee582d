"""What a run found: scores of each benchmark, and the one JSON that holds them with every
prediction."""

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

FORMAT = 1
MOST_REASONS = 3


@dataclass(frozen=True)
class BenchmarkSummary:
    """One benchmark of one run; shares are from 0 to 1."""

    title: str
    score: float
    """The benchmark's number."""
    scores: dict[str, float]
    """What else its rule reports, and accuracy by group."""
    num: int
    num_published: int | None
    """Questions of the whole split; fewer in ``num`` mean a part of it."""
    unparsable: float
    """Share of completions in which no answer was found; they count as wrong."""
    truncated: float
    """Share of completions cut at max_new_tokens."""
    num_unread: int
    """Questions that could not be asked, such as for a damaged image; they count as wrong."""
    mean_tokens: float
    vas: dict[str, float]
    """The three forms: mean over layers, heads and the user tokens that see the image of all
    questions; eps 1e-6. Empty where none was measured."""
    vas_table: dict[str, Table]
    """The same per layer and head."""
    rule: str
    official: str
    data: str
    """Where the questions came from."""
    digest: str
    """Of the questions and their answers."""
    judge: dict[str, Any] | None = None
    """Where one was asked: ``model``, ``host``, ``body``; ``asked``, ``right`` and ``failed``
    answers; ``reasons``, {why it came to no verdict: answers}, the most frequent ones."""


def summarize(
    task: EvalTask,
    predictions: Sequence[Prediction],
    table: TableSums,
    judge: JudgeConfig | None = None,
) -> BenchmarkSummary:
    """Scores of all predictions of a benchmark, whichever rank made them."""
    benchmark = task.benchmark
    scores = benchmark.scores(predictions)
    asked = [p for p in predictions if p.error is None]
    scored = sum(p.num_queries for p in predictions)
    vas = {
        form: sum(p.vas[form] * p.num_queries for p in predictions if p.vas) / scored
        for form in FORMS
        if scored
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
        vas_table=table.means(),
        rule=benchmark.rule,
        official=benchmark.official,
        data=task.path,
        digest=digest_of(task.questions),
        judge=None
        if judge is None or not isinstance(benchmark, JudgedBenchmark)
        else judge.name | _judged(predictions),
    )


def _judged(predictions: Sequence[Prediction]) -> dict[str, Any]:
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
    """Writes the result whole or not at all."""
    body = {
        "format": FORMAT,
        **head,
        "benchmarks": {name: asdict(summary) for name, summary in summaries.items()},
        "predictions": [prediction.as_dict() for prediction in predictions],
    }
    write_whole(out, [json.dumps(body, indent=1)])


@dataclass(frozen=True)
class Result:
    """A result read back."""

    path: str
    head: dict[str, Any]
    """Model, commit, settings and what else the run noted of itself."""
    benchmarks: dict[str, BenchmarkSummary]
    predictions: list[Prediction]

    @property
    def scores(self) -> dict[str, float]:
        return {name: summary.score for name, summary in self.benchmarks.items()}


def read_result(path: str | Path) -> Result:
    """
    Raises:
        ValueError: not a result of this program.
        FileNotFoundError: no such file.
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
