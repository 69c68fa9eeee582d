"""Evaluation during training: loss, VAS and accuracy on held-out rows."""

import time

import torch
from torch import Tensor, nn

from ..attention import SpecialTokens, record_attention
from ..config import Recipe
from ..data import IGNORE, Collator, Encoder, Rows, Sample, load_rows, prompt_inputs
from ..data.problems import bad_row
from ..loading import Loaded
from ..missing import HELD_OUT
from ..rewards import AnswerChecker
from ..rollout import greedy_texts
from ..vas import FORMS
from .engine import Engine
from .forward import HeadLimits, evaluating, label_nll
from .spans import spans_of, vas_sums


class HeldOut:
    """This rank's share of the rows of ``recipe.eval``, checked before the first step.

    Args:
        recipe: the recipe of the run; ``eval.path`` is set.
        loaded: the model's tokenizer, image processor and end tokens.
        engine: the engine of the model that is measured.
        collator: makes the batches for the loss.
        tokens: special tokens of the tokenizer.
        head: limits of the LM head.

    Raises:
        RowError: a row cannot be used, or has neither an answer nor a target.
    """

    def __init__(
        self,
        recipe: Recipe,
        loaded: Loaded,
        engine: Engine,
        collator: Collator,
        tokens: SpecialTokens,
        head: HeadLimits,
    ) -> None:
        held_out = recipe.eval
        assert held_out.path is not None
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.engine, self.collator, self.tokens, self.head = engine, collator, tokens, head
        self.tokenizer, self.eos_ids = loaded.tokenizer, loaded.eos_ids
        self.queries = recipe.agto.queries
        self.checker = AnswerChecker(held_out.checker)
        self.rows: Rows = load_rows(held_out.path, held_out.split, held_out.limit, names=HELD_OUT)
        self.own_indices = range(rank, len(self.rows), world_size)
        self.batch_size, self.max_new_tokens = held_out.batch_size, held_out.max_new_tokens
        self.encoder = Encoder(
            loaded.tokenizer,
            loaded.image_processor,
            recipe.data.system_prompt,
            recipe.data.max_length,
            train_turns=recipe.data.train_turns,
        )
        for index in self.own_indices:
            row = self.rows[index]
            if row.target is None:
                raise bad_row(row.where, "the answer", "be there, to evaluate with", "none")
            self.encoder.measure(row, decode=True)

    def close(self) -> None:
        self.checker.close()

    def measure(self) -> dict[str, float]:
        """Computes the metrics over the rows of all ranks; all ranks call it together.

        Returns:
            eval_loss: mean negative log-likelihood of the targets, in nats per token.
            eval_accuracy: share of the answers that greedy generation gets right.
            eval_vas_ratio, eval_vas_log_ratio, eval_vas_share: as in training.
            eval_seconds: duration.
            A metric that applies to no row is left out.
        """
        started = time.perf_counter()
        sums = torch.zeros(5 + len(FORMS), dtype=torch.float64)
        with self.engine.whole_weights() as model, evaluating(model), torch.no_grad():
            for start in range(0, len(self.own_indices), self.batch_size):
                indices = self.own_indices[start : start + self.batch_size]
                samples = [self.encoder(self.rows[i]) for i in indices]
                sums[:-2] += self._forward(model, samples)
                sums[-2:] += self._generate(model, samples)
        nll, num_targets, num_scored, *scores, right, num_answers = self.engine.sum_over_ranks(
            *sums
        )
        metrics = {}
        if num_targets:
            metrics["eval_loss"] = nll / num_targets
        if num_answers:
            metrics["eval_accuracy"] = right / num_answers
        if num_scored:
            metrics |= {f"eval_vas_{f}": v / num_scored for f, v in zip(FORMS, scores, strict=True)}
        return metrics | {"eval_seconds": time.perf_counter() - started}

    def _forward(self, model: nn.Module, samples: list[Sample]) -> Tensor:
        """Sums over samples: the loss, its tokens, the scored queries, and their VAS in each
        form."""
        batch, device = self.collator.pad(samples), self.engine.device
        spans = spans_of(batch, self.queries, self.tokens).to(device)
        batch = batch.to(device)
        with record_attention(model) as recording:
            nll = label_nll(model, batch, self.head)
        counts = (batch.labels != IGNORE).sum(), spans.scored.sum()
        scores = vas_sums(recording.mass, spans).mean(dim=1)
        sums = torch.stack([x.double() for x in (nll, *counts, *scores)])
        return sums.cpu()

    def _prompt_inputs(self, samples: list[Sample]) -> dict[str, Tensor]:
        pad_id = self.tokenizer.pad_token_id
        return prompt_inputs(samples, pad_id, self.tokens.visual, self.engine.device)

    def _generate(self, model: nn.Module, samples: list[Sample]) -> Tensor:
        """Number of right answers, and number of rows that have an answer."""
        asked = [s for s in samples if s.row.answer is not None] if self.max_new_tokens else []
        if not asked:
            return torch.zeros(2, dtype=torch.float64)
        texts = greedy_texts(
            model, self.tokenizer, asked, self._prompt_inputs, self.eos_ids, self.max_new_tokens
        )
        texts = [sample.opened + text for sample, text in zip(asked, texts, strict=True)]
        answers = [s.row.reference for s in asked if s.row.reference is not None]
        rows = [s.row.where for s in asked]
        right = self.checker.right(texts, answers, rows)
        return torch.tensor([sum(right), len(right)], dtype=torch.float64)
