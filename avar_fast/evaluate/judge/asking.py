"""A judge's verdicts on predictions that are on disk, all ranks together."""

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

Open = tuple[Prediction, Dialogue]


def judge_all(
    config: JudgeConfig, tasks: Sequence[EvalTask], journal: PredictionJournal, ranks: Ranks
) -> None:
    """Asks for what the rules find not right and no judgment is there of, and writes each
    judgment as it comes; what fails is written with its reason and is asked again by the next run.

    Raises:
        ValueError: the key is not in the environment.
    """
    from .client import Judge

    left = _open(tasks, journal)[ranks.rank :: ranks.size]
    ranks.wait()  # before the first of them writes: all see the same predictions left
    if not left:
        return
    with (
        journal.judgments_of(ranks.rank) as add,
        progress(total=len(left), desc="judge", disable=ranks.rank != 0) as bar,
    ):
        asyncio.run(_judge(Judge(config), left, add, bar))


def _open(tasks: Sequence[EvalTask], journal: PredictionJournal) -> list[Open]:
    done, _ = journal.read()
    judged = journal.judgments()
    left: list[Open] = []
    for task in tasks:
        benchmark = task.benchmark
        if not isinstance(benchmark, JudgedBenchmark):
            continue
        for question in task.questions:
            key = (benchmark.name, question.id)
            prediction = done[key]
            asked_before = key in judged and judged[key].error is None
            # In an empty completion there is nothing to find.
            if prediction.right or not prediction.completion.strip() or asked_before:
                continue
            left.append((prediction, benchmark.dialogue(question, prediction.completion)))
    return left


async def _judge(
    judge: "Judge", left: Sequence[Open], add: Callable[[Judgment], object], bar: Any
) -> None:
    failed = 0
    async with judge:
        for next_one in asyncio.as_completed([_judgment(judge, *one) for one in left]):
            judgment = await next_one
            add(judgment)
            failed += judgment.error is not None
            bar.update()
            bar.set_postfix_str(f"failed {failed}")


async def _judgment(judge: "Judge", prediction: Prediction, dialogue: Dialogue) -> Judgment:
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
