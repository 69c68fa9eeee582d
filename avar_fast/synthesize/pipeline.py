"""Takes many rows at once through describe, reason and rewrite. Every finished step is on disk
before the next one starts."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..progress import progress
from .endpoint import Endpoint, EndpointError, Halt, HaltedError, RequestFailedError
from .gates import Check, body, split_answer, step_failure
from .journal import StepJournal, StepRecord
from .ledger import BudgetExceededError, Ledger, Usage, image_tokens, text_tokens
from .prompts import Prompt
from .recipe import SynthesisRecipe
from .step_config import STEPS
from .tasks import ReadRows, SynthesisTask, read_images


@dataclass(frozen=True)
class SynthesisOutcome:
    """How a run ended."""

    stopped: str | None
    """Why the run stopped early; None if it did not."""
    over_budget: bool
    """Whether it stopped because of the budget."""
    num_failed: int
    """Number of requests of this run that failed permanently."""


class Pipeline:
    """One run over the rows of a folder."""

    def __init__(
        self,
        recipe: SynthesisRecipe,
        read: ReadRows,
        prompts: dict[str, Prompt],
        journal: StepJournal,
        check: Check,
    ) -> None:
        """
        Raises:
            MissingKeyError: the environment lacks a key.
        """
        self.recipe, self.read, self.prompts = recipe, read, prompts
        self.journal, self.check = journal, check
        self.ledger = Ledger(recipe.budget)
        for entry in journal.entries:  # the budget covers all runs of the folder
            self.ledger.spend(entry.usage, entry.cost)
        self.halt = Halt()
        self.endpoints = {
            name: Endpoint(name, recipe.step(name), self.ledger, self.halt) for name in STEPS
        }
        self._num_failed = 0
        self._failed_in_a_row = 0

    async def run(self) -> SynthesisOutcome:
        """Runs every step that is not on disk.

        The run stops if the budget is reached, if an endpoint cannot be used, or after too many
        failures. Replies to requests that were already sent are still received and kept.
        """
        width = sum(self.recipe.step(name).concurrency for name in STEPS)
        try:
            with progress(total=len(self.read.tasks), desc="rows") as bar:
                tasks = iter(self.read.tasks)
                await asyncio.gather(*(self._work(tasks, bar) for _ in range(width)))
        finally:
            for endpoint in self.endpoints.values():
                await endpoint.close()
        return SynthesisOutcome(self.halt.reason, self.halt.over_budget, self._num_failed)

    async def _work(self, tasks: Iterator[SynthesisTask], bar: Any) -> None:
        for task in tasks:
            await self._row(task)
            if self.halt.reason:
                return
            bar.update()
            bar.set_postfix(usd=f"{self.ledger.usd:.2f}", failed=self._num_failed)

    async def _row(self, task: SynthesisTask) -> None:
        described = await self._step(task, "describe", 0)
        if described is None or not await self._passes(described, task):
            return
        description = body(described.text or "", "describe")
        samples = range(self.recipe.samples)
        await asyncio.gather(*(self._sample(task, description, sample) for sample in samples))

    async def _sample(self, task: SynthesisTask, description: str, sample: int) -> None:
        reasoned = await self._step(task, "reason", sample, description=description)
        if reasoned is None or not await self._passes(reasoned, task):
            return  # a chain that ends in a wrong answer is not worth rewriting
        text = reasoned.text or ""
        final = f"<answer>{task.answer}</answer>"
        reasoning = f"{split_answer(text)}\n{final}"
        await self._step(task, "rewrite", sample, reasoning=reasoning)

    async def _passes(self, entry: StepRecord, task: SynthesisTask) -> bool:
        """Whether the next step may follow a finished step. It runs in a thread, because checking
        an answer may take seconds."""
        rules = (task.reference, self.recipe.gates, self.check)
        return await asyncio.to_thread(step_failure, entry, *rules) is None

    async def _step(
        self, task: SynthesisTask, name: str, sample: int, **texts: str
    ) -> StepRecord | None:
        """Returns the outcome of a step from disk, or else asks its endpoint; None if the request
        failed or the run must stop."""
        entry = self.journal.finished(task.key, name, sample)
        if entry is not None or self.halt.reason:
            return entry
        prompt, step = self.prompts[name], self.recipe.step(name)
        filled = prompt.fill(question=task.question, **texts)
        content: Any = filled
        input_tokens = text_tokens(prompt.system + filled)
        if name == "describe":
            blobs = list(read_images(self.read.rows[task.index], self.recipe.data))
            images = [{"type": "image_url", "image_url": {"url": blob.uri}} for blob in blobs]
            content = [*images, {"type": "text", "text": filled}]
            input_tokens += sum(image_tokens(size) for size in task.image_sizes)
        messages = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": content},
        ]

        def keep(
            text: str | None, finish: str, usage: Usage, problems: tuple[str, ...], seconds: float
        ) -> StepRecord:
            attempts = len(problems) + (text is not None)
            cost, seconds = usage.cost(step), round(seconds, 3)
            entry = StepRecord(
                *(task.key, name, sample, text, finish, step.model, prompt.version),
                *(usage, cost, attempts, seconds, problems),
            )
            self.journal.add(entry)
            return entry

        try:
            reply = await self.endpoints[name].ask(messages, input_tokens, sample)
        except EndpointError as error:
            if error.usage.total:
                keep(None, str(error), error.usage, error.problems, error.seconds)
            self.halt.set(str(error))
            return None
        except RequestFailedError as error:
            keep(None, str(error), error.usage, error.problems, error.seconds)
            self._count_failure(name, str(error))
            return None
        except BudgetExceededError as error:
            self.halt.set(str(error), over_budget=True)
            return None
        except HaltedError:
            return None
        self._failed_in_a_row = 0
        return keep(reply.text, reply.finish, reply.usage, reply.problems, reply.seconds)

    def _count_failure(self, name: str, problem: str) -> None:
        self._num_failed += 1
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.recipe.max_failures:
            self.halt.set(
                f"{name}: {self._failed_in_a_row} requests in a row failed"
                f" (max_failures = {self.recipe.max_failures}), each after its retries; the last:"
                f" {problem}"
            )
