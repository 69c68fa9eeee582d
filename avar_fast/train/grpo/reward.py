"""Rewards completions: with all reward functions of the recipe, and with VARS from the attention
masses recorded with the log-probabilities."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...attention import Recording
from ...config import Recipe
from ...config.grpo import VISUAL, reward_label
from ...data import IGNORE, Batch, Rows, Sample
from ...data.images import open_image
from ...objectives import visual_reward
from ...rewards import Completions, RewardError, RewardProblem, Rewards, TrainerState
from ...rollout import without_end
from ..run import Run

PROBLEMS_SHOWN = 3  # per step, in the log


@dataclass(frozen=True)
class CompletionRewards:
    """The rewards of this rank's completions."""

    texts: list[str]
    """N completions without their end token."""
    values: dict[str, Tensor]
    """(N,) float32 by name, NaN where a function does not apply. VARS is added later."""
    correct: Tensor
    """(N,) bool: the reward named by grpo.gate is at least 0.5."""
    num_failed: int
    """Rewards that failed and count as 0."""

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
    nan = float("nan")
    values = {
        name: torch.tensor([nan if x is None else x for x in scores])
        for name, scores in scored.values.items()
    }
    correct = values[grpo.gate] >= 0.5  # NaN counts as wrong
    return CompletionRewards(texts, values, correct, scored.num_failed)


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


def visual_rewards(run: Run, recording: Recording, batch: Batch, correct: Tensor) -> Tensor:
    """VARS of a batch whose attention masses were recorded, as (N,) float32."""
    grpo = run.recipe.grpo
    return visual_reward(
        recording.mass,
        batch.labels != IGNORE,
        correct,
        grpo.visual_form,
        clip=grpo.visual_clip,
        key_types=recording.key_types,
    )


def require_layers(recipe: Recipe, text_layers: list[nn.Module]) -> None:
    """Raises ValueError if VARS or AGTO names a layer that the model does not have."""
    count = len(text_layers)
    chosen = {"grpo.visual_layers": recipe.grpo.visual_layers, "agto.layers": recipe.agto.layers}
    for name, layers in chosen.items():
        if layers is not None and not (layers and set(layers) <= set(range(count))):
            raise ValueError(
                f"{name} must be some of the text layers 0 to {count - 1}; got {list(layers)}."
            )
