"""Evaluation during training: loss, VAS and accuracy on rows that are not trained on."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import record_attention
from ..config import Recipe
from ..data import IGNORE, Encoder, Rows, Sample, load_rows
from ..data.problems import bad_row
from ..rewards import AnswerChecker
from ..rollout import greedy_texts
from ..vas import FORMS
from .forward import evaluating, label_nll
from .run import Run
from .spans import spans_of, vas_sums


class HeldOut:
    """This rank's share of the rows of ``recipe.eval``, checked before the first step.

    Raises:
        RowError: a row that cannot be used, or that has no answer of any kind.
    """

    def __init__(self, recipe: Recipe, tokenizer: Any, image_processor: Any) -> None:
        held_out = recipe.eval
        assert held_out.path is not None
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.checker = AnswerChecker(held_out.checker)
        self.rows: Rows = load_rows(held_out.path, held_out.split, held_out.limit, setting="eval")
        self.mine = range(rank, len(self.rows), world_size)
        self.batch_size, self.max_new_tokens = held_out.batch_size, held_out.max_new_tokens
        self.encoder = Encoder(
            tokenizer,
            image_processor,
            recipe.data.system_prompt,
            recipe.data.max_length,
            train_turns=recipe.data.train_turns,
        )
        for index in self.mine:
            row = self.rows[index]
            if row.target is None:
                raise bad_row(row.where, "the answer", "be there, to evaluate with", "none")
            self.encoder.measure(row, decode=True)

    def close(self) -> None:
        self.checker.close()

    def measure(self, run: Run) -> dict[str, float]:
        """Metrics over all ranks' rows, of those that apply to them.

        Returns:
            eval_loss: nats per token of the targets; eval_accuracy: share of the answers that
            greedy generation gets right; eval_vas_ratio, _log_ratio and _share as in training;
            eval_seconds.
        """
        started = time.perf_counter()
        sums = torch.zeros(5 + len(FORMS), dtype=torch.float64)
        with run.engine.whole_weights() as model, evaluating(model), torch.no_grad():
            for start in range(0, len(self.mine), self.batch_size):
                indices = self.mine[start : start + self.batch_size]
                samples = [self.encoder(self.rows[i]) for i in indices]
                sums[:-2] += self._forward(run, model, samples)
                sums[-2:] += self._generate(run, model, samples)
        nll, num_targets, num_scored, *scores, right, num_answers = run.engine.sum_over_ranks(*sums)
        metrics = {}
        if num_targets:
            metrics["eval_loss"] = nll / num_targets
        if num_answers:
            metrics["eval_accuracy"] = right / num_answers
        if num_scored:
            metrics |= {f"eval_vas_{f}": v / num_scored for f, v in zip(FORMS, scores, strict=True)}
        return metrics | {"eval_seconds": time.perf_counter() - started}

    def _forward(self, run: Run, model: nn.Module, samples: list[Sample]) -> Tensor:
        """Sums of the loss, of its tokens, of the scored queries, and of their VAS in each form."""
        batch = run.collate(samples)
        spans = spans_of(batch, run.recipe.agto.queries, run.tokens)
        with record_attention(model) as recording:
            nll = label_nll(model, batch, run.head)
        counts = (batch.labels != IGNORE).sum(), spans.scored.sum()
        sums = (nll, *counts, *vas_sums(recording.mass, spans))
        return torch.tensor([float(x) for x in sums], dtype=torch.float64)

    def _generate(self, run: Run, model: nn.Module, samples: list[Sample]) -> Tensor:
        """Right answers, and rows that have one."""
        asked = [s for s in samples if s.row.answer is not None] if self.max_new_tokens else []
        if not asked:
            return torch.zeros(2, dtype=torch.float64)
        texts = greedy_texts(
            model, run.tokenizer, asked, run.collate_prompts, run.eos_ids, self.max_new_tokens
        )
        texts = [sample.opened + text for sample, text in zip(asked, texts, strict=True)]
        answers = [s.row.reference for s in asked if s.row.reference is not None]
        rows = [s.row.where for s in asked]
        right = self.checker.right(texts, answers, rows)
        return torch.tensor([sum(right), len(right)], dtype=torch.float64)
