"""Rewards completions: with all reward functions of the recipe, and with VARS from the attention
masses of their tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ...attention import key_types
from ...config import Recipe
from ...config.grpo import VISUAL, reward_label
from ...data import Rows, Sample
from ...data.images import open_image
from ...objectives import visual_reward
from ...rewards import (
    Completions,
    Reward,
    RewardError,
    RewardProblem,
    Rewards,
    TrainerState,
)
from ...rollout import without_end
from ..run import Run
from .completion import Completion

PROBLEMS_SHOWN = 3  # per step, in the log


@dataclass(frozen=True)
class CompletionRewards:
    """The rewards of this rank's completions."""

    texts: list[str]
    """N completions without their end token."""
    values: dict[str, Tensor]
    """(N,) float32 by name, NaN where a function does not apply; the mean of a list of one number
    per token. VARS is added later."""
    by_token: dict[str, list[Tensor | None]]
    """For functions that returned lists: (T,) float32 for each completion, None where the function
    returned no list."""
    correct: Tensor
    """(N,) bool: the reward of grpo.correct_by is at least 0.5."""
    num_failed: int
    """Rewards that failed and count as 0."""

    @property
    def whole(self) -> dict[str, Tensor]:
        """``values`` of rewards for whole completions alone, NaN where there is a list."""
        lists = {
            name: torch.tensor([x is not None for x in values])
            for name, values in self.by_token.items()
        }
        return {
            name: v.masked_fill(lists[name], float("nan")) if name in lists else v
            for name, v in self.values.items()
        }

    def means(self) -> dict[str, tuple[float, float]]:
        """For each label, the sum of the reward over the completions it applies to, and their
        number."""
        return {
            f"reward_{reward_label(name)}": (float(v.nansum()), float((~v.isnan()).sum()))
            for name, v in self.values.items()
        }


def start_rewards(recipe: Recipe, rows: Rows) -> Rewards:
    """Loads and starts the recipe's reward functions.

    Raises:
        ValueError: a function cannot be loaded, or takes a column that the data set lacks.
    """
    grpo = recipe.grpo
    names = tuple(name for name in grpo.rewards if name != VISUAL)
    rewards = Rewards(
        names,
        grpo.reward_seconds,
        grpo.reward_row_seconds,
        grpo.reward_processes,
        grpo.numeric_tolerance,
    )
    rewards.start(rows[0].columns)
    return rewards


def reward_completions(run: Run, responses: list[Sample], step: int) -> CompletionRewards:
    """Scores completions with every function except VARS; all ranks call it together.

    Args:
        run: the run.
        responses: this rank's N completions.
        step: number of the step, counted from 1.

    Raises:
        RewardError: a function failed on any rank and the recipe says to stop; on all ranks.
    """
    assert run.rewards is not None
    grpo = run.recipe.grpo
    ids = [without_end(r.target_ids, run.eos_ids) for r in responses]
    texts: list[str] = run.tokenizer.batch_decode(ids)
    names = dict.fromkeys(name for r in responses for name in r.row.columns)
    columns: dict[str, list[Any]] = {n: [r.row.columns.get(n) for r in responses] for n in names}
    columns["answer"] = [r.row.reference for r in responses]
    scored = run.rewards.score(
        Completions(
            [r.row.messages for r in responses],
            texts,
            [r.target_ids.tolist() for r in responses],
            columns,
            [r.row.where for r in responses],
            opened=[r.opened for r in responses],
            open_images=lambda: _images(responses),
            state=TrainerState(step - 1, run.recipe.train.steps),
        )
    )
    shares: list[Any] = [None] * run.engine.world_size
    torch.distributed.all_gather_object(shares, scored.problems)
    problems: list[RewardProblem] = [problem for share in shares for problem in share]
    if problems and grpo.on_reward_error == "stop":
        more = f" ({len(problems) - 1} more like it.)" if len(problems) > 1 else ""
        raise RewardError(
            f"step {step}: {problems[0]}.{more} Nothing was saved in this step; --resume continues"
            " from the last checkpoint. Correct the function or the row, or set"
            " grpo.on_reward_error=zero to give 0 and continue."
        )
    for problem in problems[:PROBLEMS_SHOWN]:
        run.tracker.say(f"step {step}: {problem}" + ("; counted as 0" if problem.count else ""))
    if len(problems) > PROBLEMS_SHOWN:
        run.tracker.say(f"step {step}: {len(problems) - PROBLEMS_SHOWN} more rewards failed")
    values = {
        name: torch.tensor([_number(x) for x in scores]) for name, scores in scored.values.items()
    }
    by_token = {
        name: [torch.tensor(x) if isinstance(x, list) else None for x in scores]
        for name, scores in scored.values.items()
        if any(isinstance(x, list) for x in scores)
    }
    correct = values[grpo.gate] >= 0.5  # NaN counts as wrong
    return CompletionRewards(texts, values, by_token, correct, scored.num_failed)


def _number(reward: Reward) -> float:
    """A reward as one number: NaN for None, the mean of a list, 0 for an empty one."""
    if isinstance(reward, list):
        return sum(reward) / max(len(reward), 1)
    return float("nan") if reward is None else reward


def _images(responses: list[Sample]) -> list[list[Any]]:
    """The images of each completion's row, turned as a viewer shows them. Completions of one group
    share their list of opened images."""
    opened: dict[int, list[Any]] = {}
    for row in (response.row for response in responses):
        if id(row) not in opened:
            opened[id(row)] = [
                open_image(image, row.where, f"image {i}") for i, image in enumerate(row.images)
            ]
    return [opened[id(response.row)] for response in responses]


def have_system_turn(run: Run, completions: list[Completion]) -> Tensor:
    """(N,) bool: whether the prompts of completions, in groups, have a system turn."""
    size = run.recipe.grpo.group_size
    prompts = (completion.sample.prompt_ids for completion in completions[::size])
    found = [(key_types(ids[None], tokens=run.tokens) == KeyType.SYSTEM).any() for ids in prompts]
    return torch.stack(found).repeat_interleave(size)


def visual_rewards(
    run: Run, completions: list[Completion], correct: Tensor, has_system: Tensor
) -> Tensor:
    """VARS of completions whose attention masses are known, as (N,) float32; zeros if its weight
    is 0.

    Args:
        run: the run.
        completions: N completions.
        correct: (N,) bool, the right ones.
        has_system: (N,) bool, as ``have_system_turn`` gives it.

    Raises:
        ValueError: the prompt of a right answer has no system turn.
    """
    grpo = run.recipe.grpo
    if not grpo.visual_weight:
        return torch.zeros(len(completions))
    known = [c.masses for c in completions if c.masses is not None]
    masses = torch.nn.utils.rnn.pad_sequence(known, batch_first=True)  # (N, T, layers, 3)
    lengths = torch.tensor([len(rows) for rows in known], device=masses.device)
    mask = torch.arange(masses.shape[1], device=masses.device) < lengths[:, None]
    return visual_reward(
        masses[:, :, :, None].unbind(dim=2),  # heads are summed up already
        mask,
        correct,
        grpo.visual_form,
        clip=grpo.visual_clip,
        key_types=torch.where(has_system, int(KeyType.SYSTEM), int(KeyType.TEXT))[:, None],
    ).cpu()


def require_layers(recipe: Recipe, attention: dict[int, nn.Module]) -> None:
    """Raises ValueError if VARS or AGTO names a text layer that has no attention."""
    numbers = ", ".join(map(str, attention))
    chosen = {"grpo.visual_layers": recipe.grpo.visual_layers, "agto.layers": recipe.agto.layers}
    for name, layers in chosen.items():
        if layers is not None and not (layers and set(layers) <= set(attention)):
            raise ValueError(
                f"{name} must be some of the text layers with attention, {numbers}; got"
                f" {list(layers)}."
            )
