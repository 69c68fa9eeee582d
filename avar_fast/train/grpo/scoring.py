"""Scores completions with the weights that sampled them: log-probabilities, those of the reference,
and the attention masses, all from forwards without gradient."""

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ...attention import Recording, key_types, record_attention
from ...data import ResponseBatch
from ...models import family_of
from ...models.flops import Work
from ..forward import evaluating, response_log_probs
from ..run import Run
from ..throughput import work_of_responses
from .completion import Completion, forwards_of, responses_of
from .reference import Reference


def needs_scoring(run: Run) -> bool:
    """Whether a pass before the update must score completions. Otherwise the update's own forward
    gives the old log-probabilities, and sampling gives the masses."""
    recipe, grpo = run.recipe, run.recipe.grpo
    return (
        grpo.scoring == "always"
        or recipe.rollout.engine != "model"
        or grpo.updates_per_rollout != 1
        or grpo.kl_coef != 0
        or has_dropout(run.engine.module)
    )


def has_dropout(model: nn.Module) -> bool:
    """Whether a forward of the model in train mode differs from one in eval mode."""
    return any(
        (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        or getattr(module, "attention_dropout", 0.0) > 0
        for module in model.modules()
    )


def recorded_layers(run: Run) -> tuple[int, ...]:
    """Indices of the layers whose masses are recorded for VARS and the log, ascending; none if
    neither needs them."""
    grpo = run.recipe.grpo
    if not (grpo.visual_weight or run.recipe.tracking.visual_share):
        return ()
    attention = family_of(run.engine.module).text_attention(run.engine.module)
    return tuple(sorted(set(attention if grpo.visual_layers is None else grpo.visual_layers)))


def opens_system_turn(run: Run, completions: list[Completion]) -> bool:
    """Whether a completion of any rank has the header of a system turn; all ranks call it together.

    The ``<|im_start|>`` of a header gets its key type from the word behind it. So the masses that
    sampling records of this token are not those of a whole forward."""
    targets = (c.sample.target_ids for c in completions)
    found = any(
        bool((key_types(ids[None], tokens=run.tokens) == KeyType.SYSTEM).any())
        for ids in targets
        if len(ids)
    )
    return run.engine.most_over_ranks(int(found)) > 0


def score_masses(run: Run, completions: list[Completion]) -> list[Work]:
    """``score`` for the masses alone: the update's own forward gives the old log-probabilities."""
    done = score(run, completions, None)
    for completion in completions:
        completion.old_log_probs = None
    return done


@torch.no_grad()
def score(run: Run, completions: list[Completion], reference: Reference | None) -> list[Work]:
    """Sets the log-probabilities and masses of completions, and the log-probabilities of the
    reference if there is one; all ranks call it together.

    Returns:
        The work of every forward.
    """
    forwards, done = forwards_of(run, completions), []
    # Ranks with fewer forwards repeat one: the others wait for them where weights are sharded.
    for i in range(run.engine.most_over_ranks(len(forwards))):
        forward = forwards[min(i, len(forwards) - 1)]
        laid_out = responses_of(run, completions, forward)
        done.append(work_of_responses(laid_out))
        responses = laid_out.to(run.engine.device)
        chosen = [completions[i] for i in forward.responses]
        _score_forward(run, responses, chosen)
        if reference is not None:
            values = responses.split(reference.log_probs(responses))
            for completion, log_probs in zip(chosen, values, strict=True):
                completion.ref_log_probs = log_probs
    return done


def _score_forward(run: Run, responses: ResponseBatch, completions: list[Completion]) -> None:
    grpo, model, layers = run.recipe.grpo, run.engine.module, recorded_layers(run)
    recorded: Any = record_attention(model, layers) if layers else contextlib.nullcontext()
    with evaluating(model), recorded as recording:
        options = run.head, grpo.temperature, run.tokens.visual
        old = response_log_probs(model, responses, *options).log_probs
    for completion, log_probs in zip(completions, responses.split(old), strict=True):
        completion.old_log_probs = log_probs
    if layers:
        masses = response_masses(responses, recording)
        for completion, rows, mask in zip(completions, masses, responses.mask, strict=True):
            completion.masses = rows[mask]


def response_masses(responses: ResponseBatch, recording: Recording) -> Tensor:
    """(N, T, layers, 3) float32: the masses of every response token's own query, summed over heads;
    layers in ascending order, 0 at padding."""
    layers: Iterable[Tensor] = (recording.mass[layer] for layer in sorted(recording.mass))
    rows = [mass.flatten(0, 1)[responses.places].float().sum(dim=1) for mass in layers]
    return responses.by_response(torch.stack(rows, dim=1))
