"""Stage sft: next-token loss on the targets, and AGTO on the masses of the same forward."""

import time
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import key_types, query_mask, record_attention, sees_image
from ..data import IGNORE, Batch
from ..objectives import agto_loss
from ..vas import FORMS, visual_attention_score
from .forward import label_log_probs
from .setup import Run

VAS_EPS = 1e-6  # only in the log: keeps the plain ratio finite where system mass has vanished


def run_sft(run: Run) -> None:
    """Trains from ``run.first_step`` to the end of the recipe."""
    for step in range(run.first_step, run.recipe.train.steps):
        started = time.perf_counter()
        metrics = _step(run, step)
        metrics["tokens_per_s"] = metrics.pop("tokens") / (time.perf_counter() - started)
        run.end_step(step + 1, metrics, shown=("loss", "vas_log_ratio", "tokens_per_s"))


def _step(run: Run, step: int) -> dict[str, float]:
    samples, size = run.stream.samples(step), run.recipe.train.micro_batch_size
    for sample in samples:
        if not len(sample.target_ids):
            raise ValueError(
                f"{sample.row.where}: stage sft needs an answer or a final assistant message; got"
                " none."
            )
    batches = [run.collate(samples[i : i + size]) for i in range(0, len(samples), size)]
    spans = [_spans(run, batch) for batch in batches]
    # Both divisors are global, so the step is the same for any number of ranks and micro-batches.
    num_targets, num_guided, num_tokens = run.engine.sum_over_ranks(
        sum((b.labels != IGNORE).sum() for b in batches),
        sum(_guided(*span).sum() for span in spans),
        sum(b.inputs["attention_mask"].sum() for b in batches),
    )
    totals = torch.zeros(5 + len(FORMS), dtype=torch.float64)
    for batch, (types, queries) in zip(batches, spans, strict=True):
        loss, parts = _losses(run, batch, types, queries, num_targets, max(num_guided, 1.0))
        run.engine.backward(loss)
        totals += parts
    summed = run.engine.sum_over_ranks(*totals)
    run.require_finite(summed[0], step + 1)
    norm = run.engine.step()
    run.require_finite(norm, step + 1, "gradient norm")
    lm, enhance, suppress, guided = summed[1:5]
    metrics = {
        "loss": summed[0],
        "lm_loss": lm,
        "lr": run.engine.lr,
        "grad_norm": norm,
        "tokens": num_tokens,
    }
    if run.recipe.agto.enabled:
        metrics |= {
            "agto_enhance": enhance / max(guided, 1),
            "agto_suppress": suppress / max(guided, 1),
        }
        metrics |= {"agto_samples": guided, "agto_skipped": run.recipe.train.batch_size - guided}
    if num_guided:
        metrics |= {f"vas_{f}": v / num_guided for f, v in zip(FORMS, summed[5:], strict=True)}
    return metrics


def _spans(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    types = key_types(ids, mask, tokens=run.tokens)
    return types, query_mask(ids, mask, role=run.recipe.agto.queries, tokens=run.tokens)


def _guided(types: Tensor, queries: Tensor) -> Tensor:
    """(B,) bool: samples with image keys, system keys and queries."""
    has = [(types == kind).any(1) for kind in (KeyType.VISUAL, KeyType.SYSTEM)]
    return has[0] & has[1] & queries.any(1)


def _losses(
    run: Run, batch: Batch, types: Tensor, queries: Tensor, num_targets: float, num_guided: float
) -> tuple[Tensor, Tensor]:
    """This micro-batch's share of the step's loss, and what the log sums up."""
    agto = run.recipe.agto
    with record_attention(run.engine.module, agto.layers) as recording:
        log_probs, _ = label_log_probs(run.engine, batch)
    lm_loss = -log_probs.sum() / num_targets
    loss = lm_loss
    sums: list[Any] = [0.0, 0.0, 0.0]
    if agto.enabled:
        extra, parts = agto_loss(
            recording.mass, queries, types, agto.alpha, agto.beta, agto.eps, num_samples=num_guided
        )
        loss = loss + extra
        sums = [
            parts.enhance * parts.num_samples,
            parts.suppress * parts.num_samples,
            parts.num_samples,
        ]
    finite = bool(torch.isfinite(loss))  # of a loss that stops the run there is nothing to score
    scores = _scores(recording.mass, types, queries) if finite else [0.0] * len(FORMS)
    return loss, torch.tensor(
        [float(x) for x in (loss.detach(), lm_loss.detach(), *sums, *scores)], dtype=torch.float64
    )


@torch.no_grad()
def _scores(mass: dict[int, Tensor], types: Tensor, queries: Tensor) -> list[Tensor | float]:
    """VAS in its three forms, summed over the samples that have one."""
    guided = _guided(types, queries)
    if not guided.any():
        return [0.0] * len(FORMS)
    chosen = queries & guided[:, None] & sees_image(types)
    return [
        visual_attention_score(mass, chosen, VAS_EPS, form, types) * guided.sum() for form in FORMS
    ]
