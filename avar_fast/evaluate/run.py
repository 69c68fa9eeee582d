"""Runs an evaluation from questions to result. Ranks share it, and an interrupted run resumes."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ..data import Rows
from ..loading import Loaded
from ..progress import progress
from ..rewards import AnswerChecker
from .answerer import Answerer, Chunk
from .benchmarks.rows import OwnRows
from .journal import PredictionJournal
from .judge.asking import judge_all
from .judge.config import JudgeConfig
from .prediction import Prediction
from .prompt_vas import TableSums
from .ranks import Ranks
from .result import FORMAT, BenchmarkSummary, summarize
from .settings import Settings
from .tasks import EvalTask, RowsTask, digest_of


@dataclass(frozen=True)
class EvaluationOutcome:
    """Summaries and predictions of a run."""

    summaries: dict[str, BenchmarkSummary]
    """{benchmark: summary}"""
    predictions: list[Prediction]
    """All predictions, in the order of the questions."""
    problems: list[str]
    """Answers that this process could not compare with the reference."""
    seconds: float
    """Wall time of this run on rank 0."""


def evaluate(
    loaded: Loaded, task: EvalTask, settings: Settings, batch_size: int = 8, name: str = "evaluate"
) -> tuple[BenchmarkSummary, list[Prediction]]:
    """Evaluates a model on one benchmark in this process. Nothing is written to disk.

    Args:
        loaded: model with attention attached.
        task: benchmark or rows, from ``avar_fast.evaluate.tasks``.
        settings: settings of the run.
        batch_size: questions that are answered at the same time.
        name: label of the progress bar.

    Returns:
        The summary, and the predictions in the order of the questions.
    """
    answerer = Answerer(loaded, settings, batch_size)
    progress = _Progress(name, len(task.questions))
    predictions: dict[str, Prediction] = {}
    table = TableSums()
    try:
        for chunk in answerer.chunks(task, task.questions):
            predictions |= {p.id: p for p in chunk.predictions}
            table.add_dict(chunk.table.as_dict())
            progress.add(chunk.predictions)
    finally:
        answerer.close()
        progress.close()
    ordered = [predictions[question.id] for question in task.questions]
    return summarize(task, ordered, table), ordered


def evaluate_rows(
    loaded: Loaded, rows: Rows, settings: Settings, batch_size: int = 8, name: str = "rows"
) -> tuple[BenchmarkSummary, list[Prediction]]:
    """Evaluates a model on the user's own rows; see ``evaluate``. ``settings.checker`` names the
    rule that scores them."""
    with AnswerChecker(settings.checker) as checker:
        task = RowsTask(OwnRows(checker), rows, name, settings)
        return evaluate(loaded, task, settings, batch_size, name)


def identity(
    model: dict[str, Any], settings: Settings, tasks: Sequence[EvalTask], judge: JudgeConfig | None
) -> dict[str, Any]:
    """The values that identify a run. All predictions of a run share them, and a run can only be
    resumed with the same values."""
    data = {f"data.{task.benchmark.name}": digest_of(task.questions) for task in tasks}
    # Equal weights are the same model, whatever their path. A hub name has no digest.
    known_by = "path" if model["weights"] is None else "weights"
    model_values = {f"model.{name}": model[name] for name in (known_by, "dtype")}
    judge_values = {} if judge is None else {"judge": judge.name}
    return {"format": FORMAT} | model_values | settings.as_dict() | data | judge_values


def run(
    start: Callable[[], Answerer],
    tasks: Sequence[EvalTask],
    journal: PredictionJournal,
    ranks: Ranks,
    judge: JudgeConfig | None = None,
) -> EvaluationOutcome | None:
    """Answers all pending questions of a run. The ranks share the work.

    A question is pending if no rank's file answers it, so the number of ranks may change on resume.

    Args:
        start: loads the model; called only if questions are pending.
        tasks: benchmarks to evaluate.
        journal: journal that this run has claimed.
        ranks: processes that share the work.
        judge: language model for completions that a rule does not score as right, in benchmarks
            whose official rule uses a judge. None for no judge.

    Returns:
        The outcome on rank 0; None on the other ranks.
    """
    started = time.perf_counter()
    done, _ = journal.read()
    ranks.wait()  # no rank writes before all have read, so that all see the same pending questions
    pending = [
        (
            task,
            [q for q in task.questions if _is_pending(done, task, q.id)][ranks.rank :: ranks.size],
        )
        for task in tasks
    ]
    problems: list[str] = []
    if any(questions for _, questions in pending):
        answerer = start()
        try:
            with journal.open_predictions(ranks.rank) as add:
                for task, questions in pending:
                    _answer(answerer, task, questions, add, ranks)
            problems = answerer.problems
        finally:
            answerer.close()
    ranks.wait()
    if judge is not None:
        judge_all(judge, tasks, journal, ranks)
        ranks.wait()
    if ranks.rank:
        return None
    done, tables = journal.read()
    judgments = journal.judgments()
    summaries, predictions = {}, []
    for task in tasks:
        name = task.benchmark.name
        answered = [done[name, question.id] for question in task.questions]
        final = [
            judgments[name, p.id].apply_to(p) if (name, p.id) in judgments else p for p in answered
        ]
        summaries[name] = summarize(task, final, tables.get(name, TableSums()), judge)
        predictions += final
    return EvaluationOutcome(summaries, predictions, problems, time.perf_counter() - started)


def _is_pending(done: Mapping[tuple[str, str], Prediction], task: EvalTask, id: str) -> bool:
    """Whether a question still needs an answer. One that could not be asked is tried again."""
    prediction = done.get((task.benchmark.name, id))
    return prediction is None or prediction.error is not None


def _answer(
    answerer: Answerer,
    task: EvalTask,
    questions: Sequence[Any],
    add: Callable[[str, Chunk], None],
    ranks: Ranks,
) -> None:
    name = task.benchmark.name
    title = f"{name} (rank 0 of {ranks.size})" if ranks.size > 1 else name
    progress = _Progress(title, len(questions), shown=ranks.rank == 0)
    try:
        for chunk in answerer.chunks(task, questions):
            add(name, chunk)
            progress.add(chunk.predictions)
            for prediction in chunk.predictions:
                if prediction.error is not None:
                    tqdm.write(f"warning: counts as wrong: {prediction.error}", file=sys.stderr)
    finally:
        progress.close()


class _Progress:
    """Progress bar with the questions done, the time left and the accuracy so far."""

    def __init__(self, title: str, total: int, shown: bool = True) -> None:
        self._bar = progress(total=total, desc=title, disable=not shown)
        self._right = self._unparsable = 0

    def add(self, predictions: Sequence[Prediction]) -> None:
        self._right += sum(p.right for p in predictions)
        self._unparsable += sum(p.parsed is None for p in predictions)
        self._bar.update(len(predictions))
        share = self._right / max(self._bar.n, 1)
        self._bar.set_postfix_str(f"right {share:.3f}, unparsable {self._unparsable}")

    def close(self) -> None:
        self._bar.close()
