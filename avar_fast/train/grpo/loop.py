"""The training loop of stage grpo: sample a group per prompt, reward the completions, update.

Attention masses, for VARS and the log, are by-products of forwards that run anyway: of sampling, or
of the pass without gradient that computes the log-probabilities under the sampling policy. That
pass is left out where the update's own forward gives the same log-probabilities.
"""

import time

import torch

from ...config.grpo import VISUAL
from ...objectives import PolicyStats, policy_loss
from ...rollout import RolloutEngine
from ..forward import response_log_probs
from ..run import Run
from .collect import Collector, RolloutBatch
from .completion import MicroBatch
from .completion_log import CompletionLog
from .reference import Reference
from .sample import open_rollout

SHOWN = ("reward", "accuracy", f"reward_{VISUAL}", "tokens_per_s", "mfu")


def run_grpo(run: Run) -> None:
    """Trains from ``run.first_step`` to the last step of the recipe."""
    rollout = open_rollout(run)
    try:
        _steps(run, rollout)
    finally:
        rollout.close()


def _steps(run: Run, rollout: RolloutEngine) -> None:
    log = CompletionLog(run)
    reference = Reference(run) if run.recipe.grpo.kl_coef > 0 else None
    collector = Collector(run, rollout, reference, log)
    for step in range(run.first_step, run.recipe.train.steps):
        started = time.perf_counter()
        collected = collector.collect(step)
        metrics, updating = collected.metrics, time.perf_counter()
        for _ in range(run.recipe.grpo.updates_per_rollout):
            metrics |= _update(run, collected.micro_batches, step)
        ended = time.perf_counter()
        speed = _speed(run, collected, ended - started, reference is not None)
        seconds = {"update_seconds": ended - updating, "step_seconds": ended - started}
        if not run.end_step(step + 1, metrics | speed | seconds, SHOWN):
            break
    log.close()


def _speed(
    run: Run, collected: RolloutBatch, seconds: float, has_reference: bool
) -> dict[str, float | None]:
    """Throughput of the whole step: tokens per second that the update runs, a shared prompt once,
    and MFU of the scoring and training passes. Sampling counts as time, not as work."""
    rates, updates = run.throughput.flops, run.recipe.grpo.updates_per_rollout
    trained = [micro_batch.work for micro_batch in collected.micro_batches]
    scoring = (2 if has_reference else 1) * sum(rates.forward.flops(w) for w in collected.scored)
    training = updates * sum(rates.training.flops(w) for w in trained)
    tokens, flops = run.engine.sum_over_ranks(sum(w.tokens for w in trained), scoring + training)
    return run.throughput.metrics(tokens, flops, seconds)


def _update(run: Run, micro_batches: list[MicroBatch], step: int) -> dict[str, float | None]:
    """Runs one optimizer step on the collected completions; returns its metrics.

    Completions of groups with equal rewards have no gradient but count in the loss's divisor.
    Completions left out because they are truncated do not count in it.
    """
    grpo = run.recipe.grpo
    num_tokens, num_responses, num_trained = run.engine.sum_over_ranks(
        sum((m.responses.mask & m.counted[:, None]).sum() for m in micro_batches),
        sum(len(m.counted) for m in micro_batches),
        sum(m.trained.sum() for m in micro_batches),
    )
    normalizer = max(num_tokens, 1.0) if grpo.loss in ("dapo", "cispo") else num_responses
    totals = torch.zeros(3 + len(PolicyStats._fields), dtype=torch.float64)
    # Ranks with fewer micro-batches repeat one without its loss: the others wait for them where
    # weights are sharded or gradients are reduced in every backward.
    count = run.engine.most_over_ranks(len(micro_batches))
    for i in range(count):
        repeats = i >= len(micro_batches)
        micro_batch = micro_batches[-1] if repeats else micro_batches[i]
        mask = micro_batch.responses.mask
        log_probs, entropies = response_log_probs(
            run.engine.module,
            micro_batch.responses,
            run.head,
            grpo.temperature,
            run.tokens.visual,
            through=run.engine,
            with_entropy=True,
        )
        assert entropies is not None
        old = micro_batch.old_log_probs
        loss, stats = policy_loss(
            log_probs,
            log_probs.detach() if old is None else old,
            micro_batch.advantages,
            mask & micro_batch.trained[:, None],
            grpo.loss,
            grpo.clip_low,
            grpo.clip_high,
            ref_log_probs=micro_batch.ref_log_probs,
            kl_coef=grpo.kl_coef,
            max_tokens=grpo.max_new_tokens,
            normalizer=normalizer,
            weights=micro_batch.weights,
        )
        run.engine.backward(loss * 0.0 if repeats else loss, last=i == count - 1)
        if repeats:
            continue
        share = float(micro_batch.trained.sum())
        entropy = float(entropies.detach().sum())
        totals += torch.tensor(
            [loss.item(), entropy, float(mask.sum()), *(float(s) * share for s in stats)],
            dtype=torch.float64,
        )
    loss_sum, entropy, num_labels, *stat_sums = run.engine.sum_over_ranks(*totals)
    rows = tuple(row for m in micro_batches for row in m.responses.batch.rows)
    run.require_finite(loss_sum, step + 1, rows)
    norm = run.engine.step().item()
    run.require_finite(norm, step + 1, rows, "gradient norm")
    return {
        "loss": loss_sum,
        **{
            name: total / num_trained if num_trained else None
            for name, total in zip(PolicyStats._fields, stat_sums, strict=True)
        },
        "entropy": entropy / num_labels if num_labels else None,
        "grad_norm": norm,
        "lr": run.engine.lr,
    }
