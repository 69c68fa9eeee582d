"""Asks a model the questions of a benchmark and scores its answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attention import intervene
from ..data import Encoder, RowError, Sample, prompt_inputs
from ..loading import Loaded
from ..models.pixels import limit_pixels
from ..rollout import ModelEngine, RolloutEngine, Sampling, without_end
from .benchmark import Question
from .prediction import Prediction, Verdict
from .prompt_vas import PromptVas, PromptVasRecorder, TableSums
from .rules.equality import MathEquality
from .settings import Settings
from .tasks import EvalTask

# Batches between two writes. Within a chunk, a finished row gives its place to the next question.
CHUNK_BATCHES = 4


@dataclass(frozen=True)
class Chunk:
    """Predictions of questions that were answered together, and their part of the VAS table."""

    predictions: list[Prediction]
    table: TableSums


@dataclass(frozen=True)
class Response:
    """A model's answer to one prompt."""

    text: str
    """The answer, including the part that the chat template has already written."""
    num_tokens: int
    """Generated tokens without the end token."""
    truncated: bool
    """Whether the answer reached ``max_new_tokens``."""
    vas: PromptVas | None
    """VAS of the prompt; None without an image or if VAS is not recorded."""


class Answerer:
    """Answers questions with one model and one set of settings.

    Args:
        loaded: model with attention attached, on its device. The processors are enough if
            ``engine`` is replaced.
        settings: settings of the run.
        batch_size: questions that are answered at the same time.

    Attributes:
        engine: generates the answers. By default it is the model itself. ``close`` closes it.
    """

    def __init__(self, loaded: Loaded, settings: Settings, batch_size: int) -> None:
        self.tokenizer, self.eos_ids = loaded.tokenizer, loaded.eos_ids
        self.settings, self.batch_size = settings, batch_size
        processor = limit_pixels(loaded.image_processor, settings.min_pixels, settings.max_pixels)
        self.encoder = Encoder(self.tokenizer, processor, settings.system_prompt)
        self.recorder = PromptVasRecorder(loaded.model, self.encoder.tokens)
        self.engine: RolloutEngine = ModelEngine(
            lambda: _intervened(loaded.model, settings),
            lambda prompts: self._inputs(loaded.model, prompts),
            batch_size,
            self.recorder if settings.vas else None,
        )
        self._equality = MathEquality()

    @property
    def chunk_size(self) -> int:
        return self.batch_size * CHUNK_BATCHES

    def close(self) -> None:
        self._equality.close()
        self.engine.close()

    @property
    def problems(self) -> list[str]:
        """Problems with answers that could not be compared. These answers count as wrong."""
        return self._equality.problems

    def chunks(self, task: EvalTask, questions: Sequence[Question]) -> Iterator[Chunk]:
        """Answers the questions and yields them a few batches at a time."""
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
                unread.append(_unread_prediction(task, question, str(error)))
        table = TableSums()
        if not asked:
            return Chunk(unread, table)
        responses = self.respond(samples)
        verdicts = task.benchmark.verdicts(asked, [r.text for r in responses], self._equality)
        answered = []
        for question, response, verdict in zip(asked, responses, verdicts, strict=True):
            if response.vas is not None:
                table.add(response.vas)
            answered.append(_answered_prediction(task, question, response, verdict))
        return Chunk(answered + unread, table)

    def respond(self, samples: list[Sample]) -> list[Response]:
        """Generates greedy answers, with the VAS of the prompts if the settings ask for it."""
        sampling = Sampling(
            num_samples=1,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=0.0,
            eos_ids=self.eos_ids,
            pad_id=self.tokenizer.pad_token_id,
            banned_ids=self.encoder.tokens.visual,
        )
        self.recorder.by_prompt.clear()
        rollouts = self.engine.generate(samples, sampling)
        responses = []
        masked = zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
        for i, (sample, (ids, mask)) in enumerate(zip(samples, masked, strict=True)):
            tokens = ids[mask]
            kept = without_end(tokens, self.eos_ids)
            text = sample.opened + self.tokenizer.decode(kept)
            vas = self.recorder.by_prompt.get(i)
            truncated = len(kept) == len(tokens)  # no end token
            responses.append(Response(text, len(kept), truncated, vas))
        return responses

    def _inputs(self, model: nn.Module, prompts: list[Sample]) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        pad_id, visual_ids = self.tokenizer.pad_token_id, self.encoder.tokens.visual
        return prompt_inputs(prompts, pad_id, visual_ids, device)


@contextmanager
def _intervened(model: nn.Module, settings: Settings) -> Iterator[nn.Module]:
    """Yields the model with the intervention of the settings applied."""
    with intervene(model, **settings.intervention) if settings.intervention else nullcontext():
        yield model


def _answered_prediction(
    task: EvalTask, question: Question, response: Response, verdict: Verdict
) -> Prediction:
    return Prediction(
        benchmark=task.benchmark.name,
        id=question.id,
        answer=question.answer,
        completion=response.text,
        parsed=verdict.parsed,
        right=verdict.right,
        num_tokens=response.num_tokens,
        truncated=response.truncated,
        groups=question.groups,
        vas=None if response.vas is None else response.vas.scores,
        num_queries=0 if response.vas is None else response.vas.num_queries,
    )


def _unread_prediction(task: EvalTask, question: Question, reason: str) -> Prediction:
    """The prediction of a question that cannot be asked, for example because its image does not
    decode."""
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
        error=reason,
    )
