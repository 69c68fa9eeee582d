"""A run from questions to result: over ranks, resumed where it was left."""

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
from .result import BenchmarkSummary, summarize
from .settings import Settings
from .tasks import EvalTask, RowsTask, digest_of


@dataclass(frozen=True)
class EvaluationOutcome:
    """All predictions of a run, in the order of the questions."""

    summaries: dict[str, BenchmarkSummary]
    predictions: list[Prediction]
    problems: list[str]
    """Answers that could not be judged by this process."""
    seconds: float


def evaluate(
    loaded: Loaded, task: EvalTask, settings: Settings, batch_size: int = 8, name: str = "evaluate"
) -> tuple[BenchmarkSummary, list[Prediction]]:
    """Asks one benchmark in this process and keeps nothing on disk.

    Args:
        loaded: the model, attached.
        task: from ``avar_fast.evaluate.tasks``.
        settings: of the run.
        batch_size: questions under way at the same time.
        name: of the progress bar.
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
    """As ``evaluate``, of rows of one's own, judged by ``settings.checker``."""
    with AnswerChecker(settings.checker) as checker:
        task = RowsTask(OwnRows(checker), rows, name, settings)
        return evaluate(loaded, task, settings, batch_size, name)


def identity(
    model: dict[str, Any], settings: Settings, tasks: Sequence[EvalTask], judge: JudgeConfig | None
) -> dict[str, Any]:
    """What must be the same when a run is resumed, and for two predictions to be of one run."""
    data = {f"data.{task.benchmark.name}": digest_of(task.questions) for task in tasks}
    # The same weights are the same model, by whatever path; of a hub name there is only the name.
    known_by = "path" if model["weights"] is None else "weights"
    named = {f"model.{name}": model[name] for name in (known_by, "dtype")}
    asked = {} if judge is None else {"judge": judge.name}
    return named | settings.as_dict() | data | asked


def run(
    start: Callable[[], Answerer],
    tasks: Sequence[EvalTask],
    journal: PredictionJournal,
    ranks: Ranks,
    judge: JudgeConfig | None = None,
) -> EvaluationOutcome | None:
    """Answers what the journal does not hold yet, all ranks together.

    Args:
        start: loads what answers; called only where something is left to ask.
        tasks: to go through.
        journal: claimed, of this run.
        ranks: that share the work.
        judge: of what the rules find not right in benchmarks whose official rule has a judge.

    Returns:
        What was found, on rank 0; None on the others.
    """
    started = time.perf_counter()
    done, _ = journal.read()
    ranks.wait()  # before the first of them writes: all see the same questions left
    left = [
        (task, [q for q in task.questions if _is_open(done, task, q.id)][ranks.rank :: ranks.size])
        for task in tasks
    ]
    problems: list[str] = []
    if any(questions for _, questions in left):
        answerer = start()
        try:
            with journal.predictions_of(ranks.rank) as add:
                for task, questions in left:
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
        own = [done[name, question.id] for question in task.questions]
        own = [judgments[name, p.id].applied(p) if (name, p.id) in judgments else p for p in own]
        summaries[name] = summarize(task, own, tables.get(name, TableSums()), judge)
        predictions += own
    return EvaluationOutcome(summaries, predictions, problems, time.perf_counter() - started)


def _is_open(done: Mapping[tuple[str, str], Prediction], task: EvalTask, id: str) -> bool:
    """Not answered yet; one that could not be asked is tried again."""
    found = done.get((task.benchmark.name, id))
    return found is None or found.error is not None


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
    """Questions done, time left, and accuracy so far."""

    def __init__(self, title: str, total: int, shown: bool = True) -> None:
        self._bar = progress(total=total, desc=title, disable=not shown)
        self._right = self._lost = 0

    def add(self, predictions: Sequence[Prediction]) -> None:
        self._right += sum(p.right for p in predictions)
        self._lost += sum(p.parsed is None for p in predictions)
        self._bar.update(len(predictions))
        share = self._right / max(self._bar.n, 1)
        self._bar.set_postfix_str(f"right {share:.3f}, unparsable {self._lost}")

    def close(self) -> None:
        self._bar.close()
