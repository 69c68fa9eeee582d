"""Functions of both vLLM engines: they convert prompts for vLLM and its answers to rollouts."""

import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ..data import Sample
from ..data.images import open_image
from .engine import RolloutError
from .generate import Rollouts, Sampling

_CONTROL = re.compile(r"<\|\w+\|>")
BANNED = -100.0  # the lowest logit bias that vLLM accepts


class WrongEngineError(RolloutError):
    """The engine does not fit the model: its weights, tokenizer or limits differ."""


def unexpanded(prompt_ids: Tensor, visual_ids: Sequence[int]) -> list[int]:
    """Prompt tokens with one pad per image. vLLM expands the pads itself, and would silently expand
    them twice.

    Vision start and end tokens separate the pads of different images.
    """
    is_pad = torch.isin(prompt_ids, torch.tensor(visual_ids))
    repeated = torch.zeros_like(is_pad)
    repeated[1:] = is_pad[1:] & is_pad[:-1]
    return prompt_ids[~repeated].tolist()


def images_of(sample: Sample) -> list[Image.Image]:
    """The images, resized to the sizes that the trainer's model sees, so that vLLM's image
    processor does not resize them by its own limits."""
    opened = [
        open_image(image, sample.row.where, f"image {i}")
        for i, image in enumerate(sample.row.images)
    ]
    return [
        image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        for image, size in zip(opened, sample.image_sizes, strict=True)
    ]


def draw_seeds(count: int) -> list[int]:
    """A seed per prompt, from torch's generator, so that a resumed run draws the same seeds."""
    return torch.randint(2**31, (count,)).tolist()


def require_same_prompt(sample: Sample, echoed: Sequence[int] | None, engine: str) -> None:
    """Raises WrongEngineError if the engine's tokens of a prompt differ from the trainer's."""
    own = sample.prompt_ids.tolist()
    if echoed is not None and list(echoed) == own:
        return
    pairs = zip(own, echoed or (), strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(own), len(echoed or ())))
    texts = [part.get("text", "") for turn in sample.row.messages for part in turn["content"]]
    typed = _CONTROL.search(" ".join(texts))
    cause = (
        f" The row contains {typed[0]}, which a server reads as a control token: leave the row out"
        " or use another engine."
        if typed
        else " Serve the model, tokenizer, chat template and image processor of model.path."
    )
    raise WrongEngineError(
        f"{sample.row.where}: {engine} must read the prompt as the trainer's tokens; of"
        f" {len(own)} and {len(echoed or ())} tokens the first that differs is number {first}."
        + cause
    )


def as_rollouts(ids: list[list[int]], log_probs: list[list[float]], sampling: Sampling) -> Rollouts:
    """Makes rollouts of completions and log-probabilities, padded on the right, on the CPU."""
    longest = max(map(len, ids))
    mask = torch.arange(longest) < torch.tensor([len(row) for row in ids])[:, None]
    padded = torch.full(mask.shape, sampling.pad_id)
    padded[mask] = torch.tensor([token for row in ids for token in row])
    values = torch.zeros(mask.shape)
    values[mask] = torch.tensor([value for row in log_probs for value in row])
    return Rollouts(padded, mask, values)
