"""Computes advantages: the weighted sum of a completion's rewards, compared with its group."""

import torch
from torch import Tensor

from ...objectives import group_advantages, informative_groups, overlong_penalty, total_reward
from ..run import Run
from .completion import Completion
from .reward import CompletionRewards
from .tally import Tally


def set_advantages(
    run: Run, completions: list[Completion], rewards: CompletionRewards, tally: Tally
) -> tuple[Tensor, Tensor]:
    """Sets ``advantage`` and ``informative`` of every completion, and adds to the tally.

    Args:
        run: the run.
        completions: this rank's N completions, group after group.
        rewards: their rewards.
        tally: sums for the log.

    Returns:
        Total rewards and advantages, both (N,) float32.
    """
    grpo, count = run.recipe.grpo, len(completions)
    totals = total_reward(rewards.values, grpo.rewards)
    lengths = torch.tensor([len(c.sample.target_ids) for c in completions])
    if grpo.overlong_buffer:
        penalties = overlong_penalty(lengths, grpo.max_new_tokens, grpo.overlong_buffer)
        totals = totals + penalties
        tally.add("overlong_penalty", float(penalties.sum()), count)
    advantages = group_advantages(totals, grpo.group_size, scale_by_std=grpo.loss != "dr_grpo")
    informative = informative_groups(totals, grpo.group_size)
    for i, completion in enumerate(completions):
        completion.advantage = advantages[i].item()
        completion.informative = bool(informative[i // grpo.group_size])
    tally.add("reward", float(totals.sum()), count)
    tally.add("accuracy", float(rewards.correct.sum()), count)
    for name, (total, applied) in rewards.means().items():
        tally.add(name, total, applied)
    tally.add("completion_tokens", float(lengths.sum()), count)
    tally.add("truncated", sum(c.truncated for c in completions), count)
    tally.add("informative_groups", float(informative.sum()), len(informative))
    tally.add("reward_failures", rewards.num_failed, count)
    return totals, advantages
