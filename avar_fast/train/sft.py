"""Stage sft: next-token loss on the targets, and AGTO on the attention masses of the same
forward."""

import time
from typing import Any

import torch
from torch import Tensor

from ..attention import record_attention
from ..data import IGNORE, NO_SAMPLE, Batch
from ..objectives import ENHANCED, agto_loss, scheduled_weights
from .forward import label_nll
from .run import Run
from .spans import Spans, spans_of, vas_metrics, vas_sums
from .throughput import work_of


def run_sft(run: Run) -> None:
    """Trains from ``run.first_step`` to the last step of the recipe."""
    for step in range(run.first_step, run.recipe.train.steps):
        started = time.perf_counter()
        metrics = training_step(run, step)
        seconds = time.perf_counter() - started
        speed = run.throughput.metrics(metrics.pop("tokens"), metrics.pop("flops"), seconds)
        shown = ("loss", "vas_log_ratio", "tokens_per_s", "mfu")
        if not run.end_step(step + 1, metrics | speed, shown):
            return


def training_step(run: Run, step: int) -> dict[str, Any]:
    """Runs one optimizer step, counted from 0; returns its metrics, tokens and FLOPs."""
    batches: list[Batch] = run.feed.next_step()
    spans = [spans_of(batch, run.recipe.agto.queries, run.tokens) for batch in batches]
    # All divisors are global: the step does not depend on the number of ranks and micro-batches.
    training = run.throughput.flops.training
    num_targets, num_guided, num_scored, num_samples, num_tokens, flops = run.engine.sum_over_rows(
        sum((b.labels != IGNORE).sum() for b in batches),
        sum(span.guided.sum() for span in spans),
        sum(span.scored.sum() for span in spans),
        sum(b.num_samples for b in batches),
        sum((b.sample_ids != NO_SAMPLE).sum() for b in batches),
        sum(training.flops(work_of(b)) for b in batches),
    )
    weights = scheduled_weights(run.recipe.agto, step, run.recipe.train.steps)
    device = run.engine.device
    totals, layers = torch.zeros((), dtype=torch.float64, device=device), []
    for i, (batch, span) in enumerate(zip(batches, spans, strict=True), start=1):
        loss, parts, layers = _losses(
            run, batch.to(device), span.to(device), weights, num_targets, max(num_guided, 1.0)
        )
        run.engine.backward(loss, last=i == len(batches))
        totals = totals + parts
    summed = run.engine.sum_tensor_over_ranks(totals)
    norm = run.engine.step()
    # The only place of a step where the host waits for the device.
    *sums, norm = torch.cat([summed, norm[None]]).tolist()
    loss_sum, lm, enhance, suppress, *scores = sums
    rows = tuple(row for batch in batches for row in batch.rows)
    run.require_finite(loss_sum, step + 1, rows)
    run.require_finite(norm, step + 1, rows, "gradient norm")
    metrics = {
        "loss": loss_sum,
        "lm_loss": lm,
        "lr": run.engine.lr,
        "grad_norm": norm,
        "tokens": num_tokens,
        "flops": flops,
        "samples": num_samples,
    }
    if run.recipe.agto.enabled:
        metrics |= {
            "agto_enhance": enhance / max(num_guided, 1),
            "agto_suppress": suppress / max(num_guided, 1),
            "agto_samples": num_guided,
            "agto_skipped": num_samples - num_guided,
            "agto_alpha": weights[0],
            "agto_beta": weights[1],
        }
    if num_scored:
        metrics |= vas_metrics(scores, layers, num_scored)
    return metrics


def _losses(
    run: Run,
    batch: Batch,
    spans: Spans,
    weights: tuple[float, float],
    num_targets: float,
    num_guided: float,
) -> tuple[Tensor, Tensor, list[int]]:
    """This micro-batch's share of the step's loss, (4 + 3 layers,) float64 values that the log sums
    up, and these layers. The values are loss, LM loss, enhance, suppress, and VAS in its three
    forms by layer. Tensors stay on the device, and the host does not wait for them."""
    agto, engine = run.recipe.agto, run.engine
    with record_attention(engine.module, agto.layers) as recording:
        nll = label_nll(engine.module, batch, run.head, through=engine, sequence=engine.sequence)
    lm_loss = nll / num_targets
    loss = lm_loss
    terms = loss.new_zeros(2).unbind()
    if agto.enabled:
        extra, parts = agto_loss(
            recording.mass,
            spans.queries,
            spans.types,
            *weights,
            agto.eps,
            num_samples=num_guided,
            sample_ids=batch.sample_ids if batch.packed else None,
            num_ids=batch.num_samples,
            eps_in=agto.eps_in,
            visual=ENHANCED[agto.enhance_keys],
        )
        # The loss is a mean over heads, and ranks that share rows hold equally many heads each.
        loss = loss + extra / engine.ranks_per_row
        terms = parts.enhance * parts.num_samples, parts.suppress * parts.num_samples
    losses = torch.stack([loss.detach(), lm_loss.detach()]).double()
    of_rows = torch.stack(terms).detach().double(), vas_sums(recording.mass, spans).flatten()
    shares = torch.cat(of_rows) / engine.ranks_per_row
    return loss, torch.cat([losses, shares]), sorted(recording.mass)
