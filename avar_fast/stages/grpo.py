"""Stage grpo: sample a group per prompt, reward accuracy, looking and format, and update.

One pass without gradient over prompts and completions gives the log-probabilities under the
sampling policy and, from the same attention, the masses of VARS: the visual reward costs no extra
forward.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..attention import record_attention
from ..config.grpo import VISUAL
from ..data import IGNORE, Batch, Sample
from ..objectives import group_advantages, informative_groups, policy_loss, total_reward
from ..rollout import Sampling, generate
from .completions import CompletionLog, records_of
from .forward import LabelScores, label_log_probs
from .rewarding import judge, visual_rewards
from .run import Run
from .throughput import work_of


@dataclass
class _Group:
    """The completions of one step on this rank, in micro-batches."""

    batches: list[Batch]
    old_log_probs: list[Tensor]
    ref_log_probs: list[Tensor | None]
    advantages: list[Tensor]


def run_grpo(run: Run, reference: torch.nn.Module | None) -> None:
    """Trains from ``run.first_step`` on; ``reference`` is the frozen start for the KL term."""
    log = CompletionLog(run)
    for step in range(run.first_step, run.recipe.train.steps):
        started = time.perf_counter()
        group, metrics = _collect(run, step, reference, log)
        for _ in range(run.recipe.grpo.updates_per_rollout):
            metrics |= _update(run, group, step)
        seconds = time.perf_counter() - started
        speed = _speed(run, group, seconds, reference is not None)
        shown = ("reward", "accuracy", f"reward_{VISUAL}", "tokens_per_s", "mfu")
        if not run.end_step(step + 1, metrics | speed | {"step_seconds": seconds}, shown):
            return


def _collect(
    run: Run, step: int, reference: torch.nn.Module | None, log: CompletionLog
) -> tuple[_Group, dict[str, float]]:
    """Completions, rewards and advantages of one step."""
    grpo, size = run.recipe.grpo, run.recipe.train.micro_batch_size
    started = time.perf_counter()
    prompts: list[Sample] = [s for some in run.feed.next_step() for s in some]
    try:
        with run.engine.whole_weights() as model:
            responses = _sample(run, model, prompts)
    except FloatingPointError as error:  # on this rank; the others may have found none
        rows = (prompt.row.where for prompt in prompts)
        what = "a logit of the sampling policy"
        raise run.diverged(math.nan, step + 1, rows, what) from error
    sampled = time.perf_counter()
    judged = judge(run, responses, step + 1)
    rewarded = time.perf_counter()

    group = _Group([], [], [], [])
    visual = []
    for i in range(0, len(responses), size):
        batch = run.collate(responses[i : i + size])
        old, seen = _score(run, batch, judged.correct[i : i + size])
        group.batches.append(batch)
        group.old_log_probs.append(old)
        group.ref_log_probs.append(
            None if reference is None else _log_probs(run, reference, batch).log_probs
        )
        visual.append(seen.cpu())
    if grpo.visual_weight:
        judged.values[VISUAL] = torch.cat(visual)
    rewards = total_reward(judged.values, grpo.rewards)
    advantages = group_advantages(rewards, grpo.group_size, scale_by_std=grpo.loss != "dr_grpo")
    group.advantages = list(advantages.to(run.engine.device).split(size))
    log.write(
        step + 1, records_of(run, responses, judged.texts, judged.values, rewards, advantages)
    )

    informative = informative_groups(rewards, grpo.group_size).float().sum()
    lengths = sum(len(r.target_ids) for r in responses)
    means = {
        "reward": (float(rewards.sum()), len(rewards)),
        "accuracy": (float(judged.correct.sum()), len(rewards)),
        **judged.means(),
        "completion_tokens": (lengths, len(rewards)),
        "informative_groups": (float(informative), len(rewards) / grpo.group_size),
    }
    *summed, failed = run.engine.sum_over_ranks(
        *(x for pair in means.values() for x in pair), judged.num_failed
    )
    pairs = zip(means, summed[::2], summed[1::2], strict=True)
    metrics = {name: total / count for name, total, count in pairs if count}
    metrics["reward_failures"] = failed
    metrics["generation_seconds"] = sampled - started
    metrics["reward_seconds"] = rewarded - sampled
    return group, metrics


def _speed(run: Run, group: _Group, seconds: float, has_reference: bool) -> dict[str, float | None]:
    """Tokens of prompts and completions per second of the whole step, and MFU of the passes over
    them; the sampling itself is not counted as work."""
    rates, updates = run.throughput.flops, run.recipe.grpo.updates_per_rollout
    work = [work_of(batch) for batch in group.batches]
    scored = (2 if has_reference else 1) * sum(rates.forward.flops(w) for w in work)
    trained = updates * sum(rates.training.flops(w) for w in work)
    tokens, flops = run.engine.sum_over_ranks(sum(w.tokens for w in work), scored + trained)
    return run.throughput.metrics(tokens, flops, seconds)


def _sample(run: Run, model: torch.nn.Module, prompts: list[Sample]) -> list[Sample]:
    """Completions as samples whose target is what the policy said."""
    grpo = run.recipe.grpo
    sampling = Sampling(
        grpo.group_size,
        grpo.max_new_tokens,
        grpo.temperature,
        run.tokens.turn_end,
        run.tokenizer.pad_token_id,
        run.tokens.visual,
    )
    at_once = grpo.prompts_per_generation
    rollouts = generate(model, prompts, run.collate_prompts, sampling, at_once)
    completions = zip(rollouts.completion_ids.cpu(), rollouts.completion_mask.cpu(), strict=True)
    return [
        dataclasses.replace(prompts[i // grpo.group_size], target_ids=ids[mask])
        for i, (ids, mask) in enumerate(completions)
    ]


def _log_probs(run: Run, model: torch.nn.Module, batch: Batch, **options: Any) -> LabelScores:
    """Log-probabilities under the distribution that sampling drew from."""
    temperature, banned = run.recipe.grpo.temperature, run.tokens.visual
    return label_log_probs(model, batch, run.head, temperature, banned, **options)


@torch.no_grad()
def _score(run: Run, batch: Batch, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities under the sampling policy, and VARS, from one forward."""
    grpo, model = run.recipe.grpo, run.engine.module
    if not grpo.visual_weight:
        return _log_probs(run, model, batch).log_probs, torch.zeros(len(correct))
    with record_attention(model, grpo.visual_layers) as recording:
        log_probs = _log_probs(run, model, batch).log_probs
    return log_probs, visual_rewards(run, recording, batch, correct)


def _update(run: Run, group: _Group, step: int) -> dict[str, float]:
    """One optimizer step on the collected completions."""
    grpo = run.recipe.grpo
    num_tokens, num_responses = run.engine.sum_over_ranks(
        sum((batch.labels != IGNORE).sum() for batch in group.batches),
        sum(len(batch.labels) for batch in group.batches),
    )
    normalizer = num_tokens if grpo.loss in ("dapo", "cispo") else num_responses
    totals = torch.zeros(5, dtype=torch.float64)
    for i, batch in enumerate(group.batches):
        log_probs, mask, entropies = _log_probs(
            run, run.engine.module, batch, through=run.engine, with_entropy=True
        )
        assert entropies is not None
        loss, stats = policy_loss(
            log_probs,
            group.old_log_probs[i],
            group.advantages[i],
            mask,
            grpo.loss,
            grpo.clip_low,
            grpo.clip_high,
            ref_log_probs=group.ref_log_probs[i],
            kl_coef=grpo.kl_coef,
            max_tokens=grpo.max_new_tokens,
            normalizer=normalizer,
        )
        run.engine.backward(loss)
        share = len(log_probs) / num_responses
        totals += torch.tensor(
            [loss.item(), *(float(s) * share for s in stats), float(entropies.detach().sum())],
            dtype=torch.float64,
        )
    summed = run.engine.sum_over_ranks(*totals)
    rows = tuple(row for batch in group.batches for row in batch.rows)
    run.require_finite(summed[0], step + 1, rows)
    norm = run.engine.step()
    run.require_finite(norm, step + 1, rows, "gradient norm")
    loss_sum, clip_fraction, ratio, kl, entropy = summed
    return {
        "loss": loss_sum,
        "clip_fraction": clip_fraction,
        "ratio": ratio,
        "kl": kl,
        "entropy": entropy / num_tokens,
        "grad_norm": norm,
        "lr": run.engine.lr,
    }
