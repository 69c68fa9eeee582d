"""Samples from the model itself. Each prompt is read and cached once for all its completions, and
the next prompts replace rows that have ended."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ..attention import SharedPrompts, SpecialTokens, cache_argument, takes_fixed_steps
from ..models import family_of
from .cache_layers import RecurrentLayer
from .masses import SampledMasses
from .rows import DecodingRows

Prompt = TypeVar("Prompt")
PromptContext = Callable[[int, dict[str, Tensor]], AbstractContextManager[Any]]
"""(index of the first prompt, left-padded inputs of the prompts) -> a context for the forward that
reads these prompts, such as record_attention."""
ENDED_SHARE = 0.25  # share of ended rows above which they are removed, which copies the other rows


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of sampling."""

    num_samples: int
    """Completions per prompt."""
    max_new_tokens: int
    """Most tokens of a completion."""
    temperature: float
    """0 means greedy."""
    eos_ids: tuple[int, ...]
    """Ids of the tokens that end a completion."""
    pad_id: int
    """Id of the padding token."""
    banned_ids: tuple[int, ...]
    """Ids that are never sampled. They must include image pads, which would break the next
    forward."""
    mass_layers: tuple[int, ...] = ()
    """Text layers whose attention masses are returned, by their index in the model, ascending.
    Engines other than the model itself have none."""


@dataclass(frozen=True)
class Rollouts:
    """Completions in the order of their prompts: n for each prompt, at most T tokens long."""

    completion_ids: Tensor
    """(prompts * n, T) int64, padded on the right."""
    completion_mask: Tensor
    """(prompts * n, T) bool, true up to and including the end token."""
    log_probs: Tensor | None = None
    """(prompts * n, T) float32, log-probabilities of the sampled tokens from an engine with its own
    copy of the weights; None if the model itself sampled."""
    masses: Tensor | None = None
    """(prompts * n, T, layers, 3) float32: the attention mass of each token's own query by key
    type, summed over heads, in ``Sampling.mass_layers``; 0 behind the end of a completion. None if
    no layers were asked for."""


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Prompt],
    collate: Callable[[list[Prompt]], dict[str, Tensor]],
    sampling: Sampling,
    at_once: int | None = None,
    prompt_context: PromptContext | None = None,
    cuda_graphs: bool = True,
) -> Rollouts:
    """Completes every prompt ``sampling.num_samples`` times.

    A prompt and its images go through the model once, and all completions read its keys from one
    cache. Up to ``at_once`` prompts are completed at the same time; when all rows of a prompt
    have ended, another prompt is read and joins the batch. If all prompts fit at once, the samples
    are the same as those of transformers' ``generate`` with the same seed.

    Args:
        model: an attached, unwrapped transformers model with all weights on its device.
        prompts: prompts in the form that ``collate`` takes.
        collate: makes left-padded inputs of prompts and their images, on the device.
        sampling: settings of sampling.
        at_once: most prompts that are completed at the same time; None completes all.
        prompt_context: context for the forwards that read prompts, and for no other forwards.
        cuda_graphs: on a GPU, replay decoding steps from CUDA graphs. Recurrent layers, experts,
            models of other families, interventions, recordings of the caller's, and autocast go
            without.

    Raises:
        FloatingPointError: the model's logits are not finite.
        RuntimeError: a decoding step waits for the device, which a CUDA graph cannot contain.
    """
    family = family_of(model)
    was_training, saved_deltas = model.training, family.get_rope_deltas(model)
    model.eval()
    graphs = cuda_graphs and _can_capture(model) and takes_fixed_steps(model)
    at_once = at_once or len(prompts)
    try:
        return _generate(model, prompts, collate, sampling, at_once, prompt_context, graphs)
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
    graphs: bool,
) -> Rollouts:
    group = sampling.num_samples
    completions: list[list[int]] = [[] for _ in range(len(prompts) * group)]
    masses = SampledMasses(sampling.mass_layers, len(completions))
    rows: DecodingRows | None = None
    noise = _Noise()
    num_read = 0
    while rows is not None or num_read < len(prompts):
        free = at_once - (0 if rows is None else len(rows) // group)
        if rows is not None and len(rows) % group:
            free -= 1
        next_prompts = list(prompts[num_read : num_read + free])
        if next_prompts:
            inputs = collate(next_prompts)
            with nullcontext() if prompt_context is None else prompt_context(num_read, inputs):
                new_rows = _read(model, inputs, num_read, group, graphs)
            num_read += len(next_prompts)
            if rows is None:
                rows = new_rows
            else:
                rows.join(new_rows)
            noise.restart(len(rows), rows.logits.device)
        assert rows is not None
        tokens = _draw(rows.logits, sampling, noise)
        appended, unfinished = [], []
        for i, (owner, token) in enumerate(zip(rows.owners, tokens.tolist(), strict=True)):
            if _is_over(completions[owner], sampling):
                continue  # an ended row that is not removed yet
            completions[owner].append(token)
            appended.append(i)
            if not _is_over(completions[owner], sampling):
                unfinished.append(i)
        if sampling.mass_layers:  # of last tokens too, which are not fed otherwise
            positions = [len(completions[rows.owners[i]]) - 1 for i in appended]
            masses.feed(model, rows, tokens, appended, positions)
        if not unfinished:
            rows = None
            continue
        ended = len(rows) - len(unfinished)
        if ended > ENDED_SHARE * len(rows) or (num_read < len(prompts) and ended >= group):
            chosen = torch.tensor(unfinished, device=tokens.device)
            rows.keep(unfinished)
            noise.keep(chosen)
            tokens = tokens[chosen]
        if not sampling.mass_layers:
            rows.feed(model, tokens)
    return _rollouts(completions, sampling, next(model.parameters()).device, masses)


def _can_capture(model: nn.Module) -> bool:
    """Whether a decoding step fits into a CUDA graph. Autocast would keep copies of weights in it,
    and the grouped products of experts may read their sizes on the host."""
    config: Any = model.config
    has_experts = hasattr(config.get_text_config(), "num_experts")
    on_gpu = next(model.parameters()).is_cuda
    return on_gpu and not has_experts and not torch.is_autocast_enabled("cuda")


def _is_over(ids: list[int], sampling: Sampling) -> bool:
    return len(ids) >= sampling.max_new_tokens or (bool(ids) and ids[-1] in sampling.eos_ids)


def _read(
    model: nn.Module, inputs: dict[str, Tensor], first: int, num_samples: int, graphs: bool
) -> DecodingRows:
    """Reads prompts: returns ``num_samples`` rows per prompt, with the logits of their first
    token."""
    family = family_of(model)
    mask = inputs["attention_mask"].bool()
    family.set_rope_deltas(model, None)
    if "pixel_values" not in inputs:  # text positions: they skip padding and need no offset
        positions = mask.long().cumsum(dim=1).sub(1).clamp(min=0)
        inputs = inputs | {"position_ids": positions.expand(3, -1, -1)}
        family.set_rope_deltas(model, torch.zeros_like(positions[:, :1]))
    attention = {layer: DynamicLayer() for layer in family.text_attention(model)}
    recurrent = {layer: RecurrentLayer() for layer in family.recurrent_layers(model)}
    layers: Any = [layer for _, layer in sorted((attention | recurrent).items())]
    options = {cache_argument(model): Cache(layers=layers), "use_cache": True, "logits_to_keep": 1}
    logits = model(**inputs, **options).logits[:, -1]
    if not torch.isfinite(logits).all():
        raise FloatingPointError(
            "the model gives logits that are not finite; nothing can be sampled."
        )
    deltas = family.get_rope_deltas(model)
    cached: Any = {index: (layer.keys, layer.values) for index, layer in attention.items()}
    rows = torch.arange(len(mask), device=mask.device).repeat_interleave(num_samples)
    prompts = SharedPrompts(inputs["input_ids"], mask, cached, rows.int())
    starts = mask.sum(dim=1, keepdim=True) + deltas
    owners = list(range(first * num_samples, (first + len(mask)) * num_samples))
    for layer in recurrent.values():
        layer.choose(rows)
    return DecodingRows(prompts, starts[rows], logits[rows], owners, recurrent, graphs)


class _Noise:
    """Exponential noise for a shrinking number of rows. It is drawn for all original rows, as
    transformers does, so that samples do not depend on when ended rows are removed."""

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
    """Draws a token per row, (rows,) int64, from (rows, V) logits."""
    logits = logits.float().clone()
    logits[:, list(sampling.banned_ids)] = float("-inf")
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    return (probabilities / noise.like(probabilities)).argmax(dim=-1)


def _rollouts(
    completions: list[list[int]], sampling: Sampling, device: torch.device, masses: SampledMasses
) -> Rollouts:
    longest = max(len(ids) for ids in completions)
    ids = [row + [sampling.pad_id] * (longest - len(row)) for row in completions]
    lengths = torch.tensor([len(row) for row in completions])
    mask = torch.arange(longest) < lengths[:, None]
    return Rollouts(torch.tensor(ids).to(device), mask.to(device), masses=masses.collected(longest))


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
    rows = zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
    return tokenizer.batch_decode([without_end(ids[mask], eos_ids) for ids, mask in rows])


def without_end(ids: Tensor, eos_ids: tuple[int, ...]) -> Tensor:
    """(T,) ids of a completion without its end token, if it has one."""
    return ids[:-1] if len(ids) and ids[-1].item() in eos_ids else ids
