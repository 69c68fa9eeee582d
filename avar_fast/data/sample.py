"""The sample of an encoded row, and its size in tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Row

IGNORE = -100  # the label that cross-entropy ignores


@dataclass(frozen=True)
class Sample:
    """One encoded row, unpadded: P tokens in the prompt, T in the target."""

    row: Row
    prompt_ids: Tensor
    """(P,) int64: all turns up to the start of the reply, with expanded image pads."""
    target_ids: Tensor
    """(T,) int64: the answer and its ``<|im_end|>``; empty without a target."""
    pixel_values: Tensor | None
    """(patches, values per patch) float32 from the image processor; None without images."""
    image_grid_thw: Tensor | None
    """(images, 3) int64: patches of each image in time, height and width; None without images."""
    trained: Tensor | None = None
    """(P,) bool: tokens of earlier assistant turns that are also trained; None without any."""
    opened: str = ""
    """The start of the reply that the chat template has already written, such as "<think>\\n"."""
    image_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) in pixels of each image as the model sees it."""

    @property
    def labels(self) -> Tensor:
        """(P + T,) int64: trained token ids at their places, ``IGNORE`` elsewhere."""
        prompt = torch.full_like(self.prompt_ids, IGNORE)
        if self.trained is not None:
            prompt = torch.where(self.trained, self.prompt_ids, prompt)
        return torch.cat([prompt, self.target_ids])

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors in bytes."""
        tensors = (self.prompt_ids, self.target_ids, self.pixel_values, self.image_grid_thw)
        tensors += (self.trained,)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True)
class Size:
    """Token counts of a row, which need no pixels."""

    prompt: int
    """Tokens of the prompt."""
    target: int
    """Tokens of the target."""
    num_cut: int
    """Tokens that were cut off."""
    earlier: int = 0
    """Trained tokens of earlier assistant turns, which are part of the prompt."""
    turns: int = 0
    """Number of assistant turns, including the target."""

    @property
    def tokens(self) -> int:
        """All tokens of the row."""
        return self.prompt + self.target
