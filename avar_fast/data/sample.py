"""One encoded row, and its size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Row

IGNORE = -100  # the label cross-entropy leaves out


@dataclass(frozen=True)
class Sample:
    """One encoded row, unpadded."""

    row: Row
    prompt_ids: Tensor
    """(P,) int64: system and user turns up to where the assistant begins, image pads expanded."""
    target_ids: Tensor
    """(T,) int64: the answer and its ``<|im_end|>``; empty without a target."""
    pixel_values: Tensor | None
    """(patches, channels) as the image processor makes them."""
    image_grid_thw: Tensor | None
    """(images, 3)"""
    trained: Tensor | None = None
    """(P,) bool: tokens of earlier assistant turns that are trained too; None for none."""
    opened: str = ""
    """What the chat template has already written of the reply, such as "<think>\\n"."""
    image_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image as the model sees it."""

    @property
    def labels(self) -> Tensor:
        """(P + T,) int64: the ids that are trained where they stand, ``IGNORE`` elsewhere."""
        prompt = torch.full_like(self.prompt_ids, IGNORE)
        if self.trained is not None:
            prompt = torch.where(self.trained, self.prompt_ids, prompt)
        return torch.cat([prompt, self.target_ids])

    @property
    def num_bytes(self) -> int:
        tensors = (self.prompt_ids, self.target_ids, self.pixel_values, self.image_grid_thw)
        tensors += (self.trained,)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True)
class Size:
    """Tokens of a row, known without its pixels."""

    prompt: int
    target: int
    num_cut: int
    """Tokens that were cut off."""
    earlier: int = 0
    """Tokens of earlier assistant turns that are trained, part of the prompt's."""
    turns: int = 0
    """Assistant turns, the target included."""

    @property
    def tokens(self) -> int:
        return self.prompt + self.target
