"""Completions of stage grpo, one by one and in micro-batches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import Forward, ResponseBatch, Sample, lay_out, plan_forwards
from ...models.flops import Work
from ...objectives import importance_weights
from ..run import Run
from ..throughput import work_of_responses


@dataclass
class Completion:
    """One completion of a prompt, with what the update needs; T tokens."""

    sample: Sample
    """The prompt with the completion as its target."""
    truncated: bool
    """The completion reached grpo.max_new_tokens before it ended."""
    sampling_log_probs: Tensor | None = None
    """(T,) log-probabilities from the sampling engine; None if the model itself sampled."""
    old_log_probs: Tensor | None = None
    """(T,) log-probabilities that the model computes with the weights that sampled; None if the
    update's own forward gives them."""
    ref_log_probs: Tensor | None = None
    """(T,) log-probabilities under the reference model; None without a KL term."""
    masses: Tensor | None = None
    """(T, layers, 3) float32 attention masses of the tokens' own queries, summed over heads; None
    if they are not recorded."""
    advantage: float = 0.0
    """Its rewards compared with those of its group."""
    token_advantages: Tensor | None = None
    """(T,) float32, added to the advantage of each token; None without rewards per token."""
    informative: bool = True
    """The rewards of its group differ. Other completions have no gradient, not even of the KL
    term."""


@dataclass
class MicroBatch:
    """Completions for one forward: N completions, T tokens the longest."""

    responses: ResponseBatch
    work: Work
    """What the forward is for the model."""
    old_log_probs: Tensor | None
    """(N, T) float32, 0 at padding; None if those of the update's own forward are the old ones."""
    ref_log_probs: Tensor | None
    """(N, T) float32, 0 at padding; None without a KL term."""
    advantages: Tensor
    """(N,) float32, or (N, T) with rewards per token."""
    weights: Tensor | None
    """(N, T) or (N, 1) importance weights; None if the model itself sampled."""
    bounded: Tensor | None
    """Scalar: share of the tokens or responses whose importance weight is bounded."""
    counted: Tensor
    """(N,) bool: false for completions that grpo.mask_truncated leaves out."""
    trained: Tensor
    """(N,) bool: counted, and in an informative group."""


def forwards_of(run: Run, completions: list[Completion]) -> list[Forward]:
    """Divides completions into forwards, as the recipe says."""
    recipe = run.recipe
    return plan_forwards(
        [c.sample for c in completions],
        rows=recipe.train.micro_batch_size,
        tokens=recipe.micro_batch_capacity,
        share=recipe.grpo.shared_prompts,
    )


def responses_of(run: Run, completions: list[Completion], forward: Forward) -> ResponseBatch:
    """The batch of one forward, on the CPU."""
    return lay_out(run.collator, [c.sample for c in completions], forward)


def micro_batch(run: Run, completions: list[Completion], forward: Forward) -> MicroBatch:
    """Makes the micro-batch of one forward, on the device, from completions with advantages."""
    grpo, device = run.recipe.grpo, run.engine.device
    laid_out = responses_of(run, completions, forward)
    responses, work = laid_out.to(device), work_of_responses(laid_out)
    chosen = [completions[i] for i in forward.responses]
    old = _to_rows(responses, [c.old_log_probs for c in chosen])
    sampling = _to_rows(responses, [c.sampling_log_probs for c in chosen])
    weights = bounded = None
    if old is not None and sampling is not None:
        weights, bounded = importance_weights(
            old,
            sampling,
            responses.mask,
            grpo.importance_level,
            grpo.importance_mode,
            grpo.importance_cap,
            grpo.importance_floor,
        )
    counted = torch.tensor(
        [not (c.truncated and grpo.mask_truncated) for c in chosen], device=device
    )
    informative = torch.tensor([c.informative for c in chosen], device=device)
    return MicroBatch(
        responses,
        work,
        old,
        _to_rows(responses, [c.ref_log_probs for c in chosen]),
        _advantages(responses, chosen),
        weights,
        bounded,
        counted,
        counted & informative,
    )


def _advantages(responses: ResponseBatch, completions: list[Completion]) -> Tensor:
    """(N,) advantages, or (N, T) if a completion has advantages per token."""
    device = responses.mask.device
    advantages = torch.tensor([c.advantage for c in completions], device=device)
    if all(c.token_advantages is None for c in completions):
        return advantages
    own = [
        torch.zeros(len(c.sample.target_ids)) if c.token_advantages is None else c.token_advantages
        for c in completions
    ]
    return advantages[:, None] + responses.by_response(torch.cat(own).to(device))


def _to_rows(responses: ResponseBatch, values: list[Tensor | None]) -> Tensor | None:
    """Puts one tensor per completion into (N, T) float32, 0 at padding; None if the completions
    have none."""
    known = [x for x in values if x is not None]
    if not known:
        return None
    return responses.by_response(torch.cat(known).to(responses.mask.device, torch.float32))
