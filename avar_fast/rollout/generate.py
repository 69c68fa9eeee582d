"""Sampling from the model itself: each prompt is read once for all its completions, and rows that
have ended make room for the next prompts."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import Cache

from ..attention import SpecialTokens
from ..models import family_of
from .rows import DecodingRows, RoomyLayer

Prompt = TypeVar("Prompt")
PromptContext = Callable[[int, dict[str, Tensor]], AbstractContextManager[Any]]
"""(number of the first prompt, their left-padded inputs) -> what the forward that reads them runs
in; record_attention, for one."""
ENDED_SHARE = 0.25  # of the rows: above it they are taken out, which copies the caches of the rest


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are drawn."""

    num_samples: int
    """Completions per prompt."""
    max_new_tokens: int
    """Longest completion."""
    temperature: float
    """0 for greedy."""
    eos_ids: tuple[int, ...]
    """Each of them ends a completion."""
    pad_id: int
    banned_ids: tuple[int, ...]
    """Never sampled; image pads must be among them, for one would break the next forward."""


@dataclass(frozen=True)
class Rollouts:
    """Completions of prompts, prompt after prompt."""

    completion_ids: Tensor
    """(prompts * n, T) int64, padded on the right."""
    completion_mask: Tensor
    """(prompts * n, T) bool, true up to and with the end token."""
    log_probs: Tensor | None = None
    """(prompts * n, T) float32 of the sampled tokens, as an engine of its own weights gives them;
    None where the model itself sampled, whose next forward gives them."""


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Prompt],
    collate: Callable[[list[Prompt]], dict[str, Tensor]],
    sampling: Sampling,
    at_once: int | None = None,
    prompt_context: PromptContext | None = None,
) -> Rollouts:
    """Completes every prompt ``sampling.num_samples`` times.

    A prompt goes through the model once, its images included, and its cache is repeated. Up to
    ``at_once`` prompts are under way; when the rows of one or more have ended, as many others are
    read and join the batch. Where all prompts fit at once, the samples are those that
    transformers' ``generate`` draws with the same seed.

    Args:
        model: an attached transformers model (unwrapped), all of its weights on its device.
        prompts: what ``collate`` takes.
        collate: some prompts -> left-padded inputs with their images, on the device.
        sampling: how to draw.
        at_once: prompts under way at the same time; all unless given.
        prompt_context: a context for the forwards that read prompts, and for no other.

    Raises:
        FloatingPointError: the model's logits are not finite.
    """
    family = family_of(model)
    was_training, saved_deltas = model.training, family.get_rope_deltas(model)
    model.eval()
    try:
        return _generate(model, prompts, collate, sampling, at_once or len(prompts), prompt_context)
    finally:
        family.set_rope_deltas(model, saved_deltas)
        model.train(was_training)


def _generate(
    model: nn.Module,
    prompts: Sequence[Prompt],
    collate: Callable[[list[Prompt]], dict[str, Tensor]],
    sampling: Sampling,
    at_once: int,
    prompt_context: PromptContext | None,
) -> Rollouts:
    group = sampling.num_samples
    said: list[list[int]] = [[] for _ in range(len(prompts) * group)]
    rows: DecodingRows | None = None
    noise = _Noise()
    begun = 0
    while rows is not None or begun < len(prompts):
        free = at_once - (0 if rows is None else len(rows) // group)
        if rows is not None and len(rows) % group:
            free -= 1
        some = list(prompts[begun : begun + free])
        if some:
            inputs = collate(some)
            with nullcontext() if prompt_context is None else prompt_context(begun, inputs):
                new = _read(model, inputs, begun)
            new.repeat(group)
            begun += len(some)
            if rows is None:
                rows = new
            else:
                rows.join(new)
            noise.restart(len(rows), rows.logits.device)
        assert rows is not None
        tokens = _draw(rows.logits, sampling, noise)
        going = []
        for i, (owner, token) in enumerate(zip(rows.owners, tokens.tolist(), strict=True)):
            if _is_over(said[owner], sampling):
                continue  # its row is still there
            said[owner].append(token)
            if not _is_over(said[owner], sampling):
                going.append(i)
        if not going:
            rows = None
            continue
        ended = len(rows) - len(going)
        if ended > ENDED_SHARE * len(rows) or (begun < len(prompts) and ended >= group):
            chosen = torch.tensor(going, device=tokens.device)
            rows.keep(going)
            noise.keep(chosen)
            tokens = tokens[chosen]
        rows.feed(model, tokens)
    return _rollouts(said, sampling, next(model.parameters()).device)


def _is_over(ids: list[int], sampling: Sampling) -> bool:
    return len(ids) >= sampling.max_new_tokens or (bool(ids) and ids[-1] in sampling.eos_ids)


def _read(model: nn.Module, inputs: dict[str, Tensor], first: int) -> DecodingRows:
    """One row per prompt, its cache filled and the logits of its first token known."""
    family = family_of(model)
    mask = inputs["attention_mask"].bool()
    family.set_rope_deltas(model, None)
    if "pixel_values" not in inputs:  # positions of plain text: without padding, no offset
        positions = mask.long().cumsum(dim=1).sub(1).clamp(min=0)
        inputs = inputs | {"position_ids": positions.expand(3, -1, -1)}
        family.set_rope_deltas(model, torch.zeros_like(positions[:, :1]))
    layers = [RoomyLayer() for _ in family.text_attention(model)]
    cache = Cache(layers=layers)  # pyright: ignore[reportArgumentType]
    logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    if not torch.isfinite(logits).all():
        raise FloatingPointError(
            "the model gives logits that are not finite; nothing can be sampled."
        )
    deltas = family.get_rope_deltas(model)
    owners = list(range(first, first + len(mask)))
    return DecodingRows(layers, inputs["input_ids"], mask, deltas, logits, owners)


class _Noise:
    """Exponential noise for rows that become fewer: drawn for all that there were, as transformers
    draws it, so that samples do not depend on when ended rows are taken out."""

    def __init__(self) -> None:
        self.drawn, self.index = 0, torch.empty(0, dtype=torch.int64)

    def restart(self, num_rows: int, device: torch.device) -> None:
        self.drawn, self.index = num_rows, torch.arange(num_rows, device=device)

    def keep(self, chosen: Tensor) -> None:
        self.index = self.index[chosen]

    def like(self, probabilities: Tensor) -> Tensor:
        noise = probabilities.new_empty(self.drawn, probabilities.shape[1]).exponential_()
        return noise if len(self.index) == self.drawn else noise[self.index]


def _draw(logits: Tensor, sampling: Sampling, noise: _Noise) -> Tensor:
    """A (rows,) token from each row of (rows, V) logits."""
    logits = logits.float().clone()
    logits[:, list(sampling.banned_ids)] = float("-inf")
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    return (probabilities / noise.like(probabilities)).argmax(dim=-1)


def _rollouts(said: list[list[int]], sampling: Sampling, device: torch.device) -> Rollouts:
    longest = max(len(ids) for ids in said)
    ids = [row + [sampling.pad_id] * (longest - len(row)) for row in said]
    lengths = torch.tensor([len(row) for row in said])
    mask = torch.arange(longest) < lengths[:, None]
    return Rollouts(torch.tensor(ids).to(device), mask.to(device))


def greedy_texts(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    collate: Callable[[list[Prompt]], dict[str, Tensor]],
    eos_ids: tuple[int, ...],
    max_new_tokens: int,
) -> list[str]:
    """Greedy completions of prompts, without the end token."""
    sampling = Sampling(
        num_samples=1,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        eos_ids=eos_ids,
        pad_id=tokenizer.pad_token_id,
        banned_ids=SpecialTokens.from_processor(tokenizer).visual,
    )
    rollouts = generate(model, prompts, collate, sampling)
    said = zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
    return tokenizer.batch_decode([without_end(ids[mask], eos_ids) for ids, mask in said])


def without_end(ids: Tensor, eos_ids: tuple[int, ...]) -> Tensor:
    """(T,) ids of a completion without the token that ended it, if one did."""
    return ids[:-1] if len(ids) and ids[-1].item() in eos_ids else ids
