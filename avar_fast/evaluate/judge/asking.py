"""Asks the judge about predictions in the journal. The ranks share the work."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...progress import progress
from ..benchmark import Dialogue, JudgedBenchmark
from ..journal import Judgment, PredictionJournal
from ..prediction import Prediction
from ..ranks import Ranks
from ..tasks import EvalTask
from .config import JudgeConfig, JudgeError

if TYPE_CHECKING:
    from .client import Judge

PendingJudgment = tuple[Prediction, Dialogue]


def judge_all(
    config: JudgeConfig, tasks: Sequence[EvalTask], journal: PredictionJournal, ranks: Ranks
) -> None:
    """Asks the judge about every prediction that the rule does not score as right and that has no
    judgment yet. Each judgment is written as it arrives. A failure is written with its reason, and
    the next run asks again.

    Raises:
        ValueError: the key is not in the environment.
    """
    from .client import Judge

    pending = _pending(tasks, journal)[ranks.rank :: ranks.size]
    # No rank writes before all have read, so that all see the same pending predictions.
    ranks.wait()
    if not pending:
        return
    with (
        journal.open_judgments(ranks.rank) as add,
        progress(total=len(pending), desc="judge", disable=ranks.rank != 0) as bar,
    ):
        asyncio.run(_ask_judge(Judge(config), pending, add, bar))


def _pending(tasks: Sequence[EvalTask], journal: PredictionJournal) -> list[PendingJudgment]:
    """The predictions to ask the judge about, each with its dialogue."""
    done, _ = journal.read()
    judged = journal.judgments()
    pending: list[PendingJudgment] = []
    for task in tasks:
        benchmark = task.benchmark
        if not isinstance(benchmark, JudgedBenchmark):
            continue
        for question in task.questions:
            key = (benchmark.name, question.id)
            prediction = done[key]
            is_judged = key in judged and judged[key].error is None
            # An empty completion holds no answer to judge.
            if prediction.right or not prediction.completion.strip() or is_judged:
                continue
            pending.append((prediction, benchmark.dialogue(question, prediction.completion)))
    return pending


async def _ask_judge(
    judge: "Judge",
    pending: Sequence[PendingJudgment],
    add: Callable[[Judgment], object],
    bar: Any,
) -> None:
    failed = 0
    async with judge:
        requests = [_ask_judgment(judge, prediction, dialogue) for prediction, dialogue in pending]
        for request in asyncio.as_completed(requests):
            judgment = await request
            add(judgment)
            failed += judgment.error is not None
            bar.update()
            bar.set_postfix_str(f"failed {failed}")


async def _ask_judgment(judge: "Judge", prediction: Prediction, dialogue: Dialogue) -> Judgment:
    """Carries a dialogue with the judge to its verdict, or to its first failure."""
    key, replies = (prediction.benchmark, prediction.id), []
    try:
        prompt = next(dialogue)
        while True:
            replies.append(await judge.ask(prompt))
            prompt = dialogue.send(replies[-1])
    except StopIteration as end:
        return Judgment(*key, replies, end.value.parsed, end.value.right)
    except JudgeError as error:
        return Judgment(*key, replies, error=str(error))
