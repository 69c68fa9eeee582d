"""Opens the rollout engine and samples the completions of stage grpo."""

import dataclasses
from pathlib import Path

import torch

from ...data import Sample
from ...data.problems import bad_row
from ...models import whole_model_at
from ...rollout import ModelEngine, RolloutEngine, Sampling, WrongEngineError, open_engine
from ..random_state import get_random_state, set_random_state
from ..run import Run
from .completion import Completion


def open_rollout(run: Run) -> RolloutEngine:
    """Opens the engine that the recipe names; all ranks call it together. ``prepare_rollout`` gives
    the engine the model's weights.

    Raises:
        RolloutError: the engine cannot be started or reached.
    """
    recipe, grpo = run.recipe, run.recipe.grpo
    at_once, max_length = grpo.prompts_per_generation, recipe.data.max_length + grpo.max_new_tokens
    folder = recipe.rollout.server_folder or Path(recipe.train.output_dir) / "rollout_weights"
    random_state = get_random_state()
    engine = open_engine(
        recipe.rollout,
        ModelEngine(
            run.engine.whole_weights,
            run.collate_prompts,
            at_once,
            cuda_graphs=recipe.rollout.cuda_graphs,
        ),
        path=whole_model_at(recipe.model.path),
        dtype=recipe.model.dtype,
        system_prompt=recipe.data.system_prompt,
        max_length=max_length,
        min_length=max_length,
        max_rows=at_once * grpo.group_size,
        weights_folder=Path(folder),
    )
    # vLLM seeds the generators of this process, equally on all ranks and in all runs: restore them.
    set_random_state(random_state)
    return engine


def prepare_rollout(run: Run, rollout: RolloutEngine) -> None:
    """Wakes the engine and gives it the model's weights, before a step's completions are sampled;
    all ranks call it together."""
    rollout.wake()
    if run.recipe.rollout.engine != "model":
        with run.engine.whole_weights() as model:
            rollout.sync_weights(model)


def sample(
    run: Run, rollout: RolloutEngine, prompts: list[Sample], mass_layers: tuple[int, ...] = ()
) -> list[Completion]:
    """Samples a group of completions per prompt, in the order of the prompts.

    Args:
        run: the run.
        rollout: the engine that samples.
        prompts: the prompts.
        mass_layers: layers whose attention masses are recorded while sampling.

    Raises:
        RowError: a completion holds image or video pads.
        FloatingPointError: a logit of the model that samples is not finite.
    """
    grpo = run.recipe.grpo
    sampling = Sampling(
        num_samples=grpo.group_size,
        max_new_tokens=grpo.max_new_tokens,
        temperature=grpo.temperature,
        eos_ids=run.eos_ids,
        pad_id=run.tokenizer.pad_token_id,
        banned_ids=run.tokens.visual,
        mass_layers=mass_layers,
    )
    rollouts = rollout.generate(prompts, sampling)
    all_ids, masks = rollouts.completion_ids.cpu(), rollouts.completion_mask.cpu()
    completions = []
    for i, (row, mask) in enumerate(zip(all_ids, masks, strict=True)):
        ids = row[mask]
        prompt = prompts[i // grpo.group_size]
        completion = Completion(
            dataclasses.replace(prompt, target_ids=ids),
            truncated=len(ids) > 0 and ids[-1].item() not in run.eos_ids,
            sampling_log_probs=None if rollouts.log_probs is None else rollouts.log_probs[i][mask],
            masses=None if rollouts.masses is None else rollouts.masses[i][mask],
        )
        require_text(completion.sample, run.tokens.visual)
        completions.append(completion)
    return completions


def require_text(sample: Sample, visual_ids: tuple[int, ...]) -> None:
    """Raises RowError if a completion holds image or video pads: the model's forward would fail."""
    pads = int(torch.isin(sample.target_ids, torch.tensor(visual_ids)).sum())
    if pads:
        got = f"{pads} of its {len(sample.target_ids)} tokens are such pads"
        remedy = "Ban them in the sampling engine."
        expected = "hold no <|image_pad|> or <|video_pad|>"
        raise bad_row(sample.row.where, "a completion", expected, got, remedy)


def sampling_gaps(completions: list[Completion]) -> torch.Tensor:
    """The absolute difference between each token's log-probability in the sampling engine and in
    the model, as (tokens,) nats; empty if the model itself sampled."""
    gaps = [
        (c.old_log_probs - c.sampling_log_probs.to(c.old_log_probs)).abs()
        for c in completions
        if c.old_log_probs is not None and c.sampling_log_probs is not None
    ]
    return torch.cat(gaps) if gaps else torch.empty(0)


def require_same_weights(run: Run, mean_gap: float | None) -> None:
    """Raises WrongEngineError if the mean gap, in nats per token, is above rollout.largest_gap."""
    largest = run.recipe.rollout.largest_gap
    if mean_gap is not None and not mean_gap <= largest:
        raise WrongEngineError(
            f"rollout.engine={run.recipe.rollout.engine} must hold the model's weights; its"
            f" log-probabilities differ by {mean_gap:.3g} nats per token on average, more than"
            f" rollout.largest_gap = {largest:g}. Serve the model of model.path in the same dtype,"
            " with --logprobs-mode processed_logprobs, and check that the weights reach it."
        )
