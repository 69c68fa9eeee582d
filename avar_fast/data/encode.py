"""Rows to token ids and pixels, with the tokenizer's own chat template and the image processor."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..attention import SpecialTokens
from .rows import Row, open_image

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

    @property
    def num_bytes(self) -> int:
        tensors = (self.prompt_ids, self.target_ids, self.pixel_values, self.image_grid_thw)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


class Encoder:
    """Turns rows into samples.

    Args:
        tokenizer: with Qwen-VL's special tokens and a chat template.
        image_processor: Qwen-VL's.
        system_prompt: system turn for rows without one; None adds none.
        max_length: most tokens in prompt and target together.
    """

    def __init__(
        self, tokenizer: Any, image_processor: Any, system_prompt: str | None, max_length: int
    ) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.system_prompt, self.max_length = system_prompt, max_length
        self.tokens = SpecialTokens.from_processor(tokenizer)
        self.image_pad = self.tokens.visual[0]

    def __call__(self, row: Row) -> Sample:
        """Encodes one row.

        Raises:
            ValueError: the row needs more than max_length tokens, its text holds image or video
                pads of its own, or an image cannot be read; the message names the row.
        """
        messages = row.messages
        if self.system_prompt is not None and messages[0]["role"] != "system":
            system = {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]}
            messages = [system, *messages]
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor(self.tokenizer.encode(text, add_special_tokens=False))
        pixels = grid = None
        if row.images:
            images = [open_image(image, row.where) for image in row.images]
            features = self.image_processor(images=images, return_tensors="pt")
            pixels, grid = features["pixel_values"], features["image_grid_thw"]
        ids = self._expand_pads(ids, grid, row)
        target = torch.empty(0, dtype=torch.int64)
        if row.target is not None:
            target_ids = self.tokenizer.encode(row.target, add_special_tokens=False)
            target = torch.tensor([*target_ids, self.tokens.turn_end])
            if torch.isin(target, torch.tensor(self.tokens.visual)).any():
                raise ValueError(
                    f"{row.where}: the answer must be text; it holds an image or video pad. Take"
                    " <|image_pad|> and <|video_pad|> out of it."
                )
        if len(ids) + len(target) > self.max_length:
            raise ValueError(
                f"{row.where}: a sample must have at most data.max_length = {self.max_length}"
                f" tokens; this has {len(ids)} in the prompt and {len(target)} in the target. Raise"
                " it or shrink the images."
            )
        return Sample(row, ids, target, pixels, grid)

    def _expand_pads(self, ids: Tensor, grid: Tensor | None, row: Row) -> Tensor:
        """One pad per image as the template writes it -> one pad per visual feature."""
        is_pad = ids == self.image_pad
        if torch.isin(ids, torch.tensor(self.tokens.visual[1:])).any():
            raise ValueError(
                f"{row.where}: the prompt must hold no video; it holds a video pad. Take"
                " <|video_pad|> out of the text."
            )
        num_images = 0 if grid is None else len(grid)
        if int(is_pad.sum()) != num_images:
            raise ValueError(
                f"{row.where}: the prompt must hold one image pad per image; got"
                f" {int(is_pad.sum())} for {num_images} images. Take <|image_pad|> out of the text"
                " and check the chat template."
            )
        repeats = torch.ones_like(ids)
        if grid is not None:
            repeats[is_pad] = grid.prod(dim=1) // self.image_processor.merge_size**2
        return ids.repeat_interleave(repeats)


@dataclass(frozen=True)
class Batch:
    """Padded samples on one device."""

    inputs: dict[str, Tensor]
    """What the model's forward takes."""
    labels: Tensor
    """(B, L) target ids where they stand in the input, ``IGNORE`` elsewhere."""

    def to(self, device: torch.device | str) -> "Batch":
        inputs = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True))


def collate(
    samples: list[Sample], pad_id: int, visual_ids: tuple[int, ...], with_target: bool = True
) -> Batch:
    """Pads prompts with their targets on the right, or prompts alone on the left (for
    generation)."""
    rows = [
        torch.cat([s.prompt_ids, s.target_ids]) if with_target else s.prompt_ids for s in samples
    ]
    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORE)
    for i, (row, sample) in enumerate(zip(rows, samples, strict=True)):
        start = 0 if with_target else longest - len(row)
        input_ids[i, start : start + len(row)] = row
        attention_mask[i, start : start + len(row)] = 1
        if with_target:
            labels[i, len(sample.prompt_ids) : len(row)] = sample.target_ids
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        # Without these, Qwen2.5-VL falls back to one-dimensional positions and says nothing.
        "mm_token_type_ids": sum(
            (input_ids == v).int() * (i + 1) for i, v in enumerate(visual_ids)
        ),
    }
    pixels = [s.pixel_values for s in samples if s.pixel_values is not None]
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
        grids = [s.image_grid_thw for s in samples if s.image_grid_thw is not None]
        inputs["image_grid_thw"] = torch.cat(grids)
    return Batch(inputs, labels)
