"""Stage sft: next-token loss on the targets, and AGTO on the masses of the same forward."""

import time
from typing import Any

import torch
from torch import Tensor

from ..attention import record_attention
from ..data import IGNORE, NO_SAMPLE, Batch
from ..objectives import agto_loss
from ..vas import FORMS
from .forward import label_nll
from .run import Run
from .spans import Spans, spans_of, vas_sums


def run_sft(run: Run) -> None:
    """Trains from ``run.first_step`` to the end of the recipe."""
    for step in range(run.first_step, run.recipe.train.steps):
        started = time.perf_counter()
        metrics = _step(run, step)
        metrics["tokens_per_s"] = metrics.pop("tokens") / (time.perf_counter() - started)
        if not run.end_step(step + 1, metrics, shown=("loss", "vas_log_ratio", "tokens_per_s")):
            return


def _step(run: Run, step: int) -> dict[str, float]:
    batches: list[Batch] = run.feed.next_step()
    spans = [spans_of(batch, run.recipe.agto.queries, run.tokens) for batch in batches]
    # All divisors are global, so the step is the same for any number of ranks and micro-batches.
    num_targets, num_guided, num_scored, num_samples, num_tokens = run.engine.sum_over_rows(
        sum((b.labels != IGNORE).sum() for b in batches),
        sum(span.guided.sum() for span in spans),
        sum(span.scored.sum() for span in spans),
        sum(b.num_samples for b in batches),
        sum((b.sample_ids != NO_SAMPLE).sum() for b in batches),
    )
    totals = torch.zeros(4 + len(FORMS), dtype=torch.float64)
    device = run.engine.device
    for batch, span in zip(batches, spans, strict=True):
        loss, parts = _losses(
            run, batch.to(device), span.to(device), num_targets, max(num_guided, 1.0)
        )
        run.engine.backward(loss)
        totals += parts
    summed = run.engine.sum_over_ranks(*totals)
    rows = tuple(row for batch in batches for row in batch.rows)
    run.require_finite(summed[0], step + 1, rows)
    norm = run.engine.step()
    run.require_finite(norm, step + 1, rows, "gradient norm")
    loss_sum, lm, enhance, suppress = summed[:4]
    metrics = {
        "loss": loss_sum,
        "lm_loss": lm,
        "lr": run.engine.lr,
        "grad_norm": norm,
        "tokens": num_tokens,
        "samples": num_samples,
    }
    if run.recipe.agto.enabled:
        metrics |= {
            "agto_enhance": enhance / max(num_guided, 1),
            "agto_suppress": suppress / max(num_guided, 1),
            "agto_samples": num_guided,
            "agto_skipped": num_samples - num_guided,
        }
    if num_scored:
        metrics |= {f"vas_{f}": v / num_scored for f, v in zip(FORMS, summed[4:], strict=True)}
    return metrics


def _losses(
    run: Run, batch: Batch, spans: Spans, num_targets: float, num_guided: float
) -> tuple[Tensor, Tensor]:
    """This micro-batch's share of the step's loss, and what the log sums up."""
    agto, engine = run.recipe.agto, run.engine
    with record_attention(engine.module, agto.layers) as recording:
        nll = label_nll(engine.module, batch, run.head, through=engine, sequence=engine.sequence)
    lm_loss = nll / num_targets
    loss = lm_loss
    sums: list[Any] = [0.0, 0.0]
    if agto.enabled:
        packed = batch.label_positions is not None
        extra, parts = agto_loss(
            recording.mass,
            spans.queries,
            spans.types,
            agto.alpha,
            agto.beta,
            agto.eps,
            num_samples=num_guided,
            sample_ids=batch.sample_ids if packed else None,
            num_ids=batch.num_samples,
        )
        # Ranks that share rows hold equally many heads each, over which all of this is a mean.
        loss = loss + extra / engine.ranks_per_row
        sums = [parts.enhance * parts.num_samples, parts.suppress * parts.num_samples]
    finite = bool(torch.isfinite(loss))  # of a loss that stops the run there is nothing to score
    scores = vas_sums(recording.mass, spans) if finite else [0.0] * len(FORMS)
    shares = [float(x) / engine.ranks_per_row for x in (*sums, *scores)]
    return loss, torch.tensor([loss.item(), lm_loss.item(), *shares], dtype=torch.float64)
