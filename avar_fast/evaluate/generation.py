"""Asking a model the questions of a benchmark and judging what it says."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import intervene
from ..data import Encoder, RowError, Sample, prompt_inputs
from ..loading import Loaded
from ..models.pixels import limit_pixels
from ..rollout import RolloutEngine, Rollouts, Sampling, generate, without_end
from .benchmark import Question
from .prediction import Prediction, Verdict
from .prompt_vas import Look, Looks, TableSums
from .rules.equality import MathEquality
from .settings import Settings
from .tasks import EvalTask

CHUNK_BATCHES = 4  # batches between two writes: rows that end leave their place to the next
UNLIMITED = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Questions answered together, and their part of the VAS table."""

    predictions: list[Prediction]
    table: TableSums


@dataclass(frozen=True)
class Response:
    text: str
    """What the chat template has already written of the reply included."""
    num_tokens: int
    truncated: bool


class Answering:
    """One model under one set of settings.

    Args:
        loaded: the model, attached, on its device.
        settings: of the run.
        batch_size: questions under way at the same time.
        engine: what generates, weights in it; the model itself unless given. It is closed with
            this object.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: Settings,
        batch_size: int,
        engine: RolloutEngine | None = None,
    ) -> None:
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.settings, self.batch_size, self.engine = settings, batch_size, engine
        self.eos_ids = loaded.eos_ids
        processor = limit_pixels(loaded.image_processor, settings.min_pixels, settings.max_pixels)
        self.encoder = Encoder(
            self.tokenizer, processor, settings.system_prompt, max_length=UNLIMITED
        )
        self._equality = MathEquality()

    @property
    def chunk_size(self) -> int:
        return self.batch_size * CHUNK_BATCHES

    def close(self) -> None:
        self._equality.close()
        if self.engine is not None:
            self.engine.close()

    @property
    def problems(self) -> list[str]:
        """Answers that could not be judged; they count as wrong."""
        return self._equality.problems

    def chunks(self, task: EvalTask, questions: Sequence[Question]) -> Iterator[Chunk]:
        """Answers the questions, some batches at a time."""
        for start in range(0, len(questions), self.chunk_size):
            yield self._chunk(task, questions[start : start + self.chunk_size])

    @torch.no_grad()
    def _chunk(self, task: EvalTask, questions: Sequence[Question]) -> Chunk:
        samples: list[Sample] = []
        asked: list[Question] = []
        unread: list[Prediction] = []
        for question in questions:
            try:
                samples.append(self.encoder(task.row(question)))
                asked.append(question)
            except RowError as error:
                unread.append(_unread(task, question, str(error)))
        table = TableSums()
        if not asked:
            return Chunk(unread, table)
        looks = Looks(self.model, self.encoder.tokens)
        completions = self.complete(samples, looks)
        verdicts = task.benchmark.verdicts(asked, [c.text for c in completions], self._equality)
        answered = []
        for i, (question, completion) in enumerate(zip(asked, completions, strict=True)):
            look = looks.found.get(i)
            if look is not None:
                table.add(look.tables, look.num_queries)
            answered.append(_answered(task, question, completion, verdicts[i], look))
        return Chunk(answered + unread, table)

    def complete(self, samples: list[Sample], looks: Looks) -> list[Response]:
        """Greedy completions, and in ``looks`` the VAS of the prompts."""
        tokens, pad_id = self.encoder.tokens, self.tokenizer.pad_token_id
        sampling = Sampling(
            num_samples=1,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=0.0,
            eos_ids=self.eos_ids,
            pad_id=pad_id,
            banned_ids=tokens.visual,
        )
        if self.engine is None:
            rollouts = self._generate(samples, sampling, looks)
        else:
            rollouts = self.engine.generate(samples, sampling)
        completions = []
        masked = zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
        for sample, (ids, mask) in zip(samples, masked, strict=True):
            said = ids[mask]
            kept = without_end(said, self.eos_ids)
            text = sample.opened + self.tokenizer.decode(kept)
            completions.append(Response(text, len(kept), len(kept) == len(said)))
        return completions

    def _generate(self, samples: list[Sample], sampling: Sampling, looks: Looks) -> Rollouts:
        """By the model itself, under the settings' intervention."""
        settings, visual = self.settings, self.encoder.tokens.visual
        device = next(self.model.parameters()).device

        def inputs_of(prompts: list[Sample]) -> dict[str, Tensor]:
            return prompt_inputs(prompts, sampling.pad_id, visual, device)

        changed = intervene(self.model, **settings.intervention) if settings.intervention else None
        reading = looks.reading if settings.vas else None
        with changed or nullcontext():
            return generate(self.model, samples, inputs_of, sampling, self.batch_size, reading)


def _answered(
    task: EvalTask, question: Question, completion: Response, verdict: Verdict, look: Look | None
) -> Prediction:
    return Prediction(
        benchmark=task.benchmark.name,
        id=question.id,
        answer=question.answer,
        completion=completion.text,
        parsed=verdict.parsed,
        right=verdict.right,
        num_tokens=completion.num_tokens,
        truncated=completion.truncated,
        groups=question.groups,
        vas=None if look is None else look.scores,
        num_queries=0 if look is None else look.num_queries,
    )


def _unread(task: EvalTask, question: Question, why: str) -> Prediction:
    """Of a question that cannot be asked, such as one whose image does not decode."""
    return Prediction(
        benchmark=task.benchmark.name,
        id=question.id,
        answer=question.answer,
        completion="",
        parsed=None,
        right=False,
        num_tokens=0,
        truncated=False,
        groups=question.groups,
        error=why,
    )
