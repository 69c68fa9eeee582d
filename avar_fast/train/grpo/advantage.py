"""Computes advantages: the weighted sum of a completion's rewards, compared with its group, and the
rewards of single tokens, compared with those of all tokens of the group."""

import torch
from torch import Tensor

from ...objectives import (
    group_advantages,
    informative_groups,
    overlong_penalty,
    token_advantages,
    total_reward,
)
from ..run import Run
from .completion import Completion
from .reward import CompletionRewards
from .tally import Tally


def set_advantages(
    run: Run, completions: list[Completion], rewards: CompletionRewards, tally: Tally
) -> tuple[Tensor, Tensor]:
    """Sets ``advantage``, ``token_advantages`` and ``informative`` of every completion, and adds to
    the tally.

    Args:
        run: the run.
        completions: this rank's N completions, group after group.
        rewards: their rewards.
        tally: sums for the log.

    Returns:
        Total rewards and advantages, both (N,) float32. Rewards and advantages per token count with
        their mean over the completion's tokens.
    """
    grpo, count = run.recipe.grpo, len(completions)
    scale_by_std = grpo.loss != "dr_grpo"
    totals, shown = (
        total_reward(values, grpo.rewards) for values in (rewards.whole, rewards.values)
    )
    lengths = torch.tensor([len(c.sample.target_ids) for c in completions])
    if grpo.overlong_buffer:
        penalties = overlong_penalty(lengths, grpo.max_new_tokens, grpo.overlong_buffer)
        totals, shown = totals + penalties, shown + penalties
        tally.add("overlong_penalty", float(penalties.sum()), count)
    advantages = group_advantages(totals, grpo.group_size, scale_by_std)
    informative = informative_groups(totals, grpo.group_size)
    shown_advantages = advantages.clone()
    for i, own in enumerate(_of_tokens(run, rewards)):
        completions[i].advantage = advantages[i].item()
        completions[i].token_advantages = own
        if own is not None and len(own):
            informative[i // grpo.group_size] |= bool(own.any())
            shown_advantages[i] += own.mean()
    for i, completion in enumerate(completions):
        completion.informative = bool(informative[i // grpo.group_size])
    tally.add("reward", float(shown.sum()), count)
    tally.add("accuracy", float(rewards.correct.sum()), count)
    for name, (total, applied) in rewards.means().items():
        tally.add(name, total, applied)
    tally.add("completion_tokens", float(lengths.sum()), count)
    tally.add("truncated", sum(c.truncated for c in completions), count)
    tally.add("informative_groups", float(informative.sum()), len(informative))
    tally.add("reward_failures", rewards.num_failed, count)
    return shown, shown_advantages


def _of_tokens(run: Run, rewards: CompletionRewards) -> list[Tensor | None]:
    """For each completion, the weighted sum of its advantages per token; None if it has none."""
    grpo = run.recipe.grpo
    sums: list[Tensor | None] = [None] * len(rewards.texts)
    for name, values in rewards.by_token.items():
        found = token_advantages(values, grpo.group_size, grpo.loss != "dr_grpo")
        for i, own in enumerate(found):
            if own is not None:
                before, weighted = sums[i], grpo.rewards[name] * own
                sums[i] = weighted if before is None else before + weighted
    return sums
