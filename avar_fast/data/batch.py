"""Samples to the tensors of one forward: padded side by side, or packed end to end in one row."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..models import family_named
from .sample import IGNORE, Sample

NO_SAMPLE = -1  # in sample_ids: padding, and the blank image of a batch of text


@dataclass(frozen=True)
class Batch:
    """Samples on one device, as a model takes them."""

    inputs: dict[str, Any]
    """What the model's forward takes; packed samples have cu_seq_lens_q and its like."""
    labels: Tensor
    """(B, L) target ids where they stand in the input, ``IGNORE`` elsewhere."""
    sample_ids: Tensor
    """(B, L) int64: which sample a token belongs to, ``NO_SAMPLE`` where to none."""
    rows: tuple[str, ...]
    """Where each sample comes from."""
    label_positions: Tensor | None = None
    """(K,) positions behind which a label stands, of a packed row; None where rows are padded."""

    @property
    def num_samples(self) -> int:
        return len(self.rows)

    @property
    def label_mask(self) -> Tensor:
        """(B, L - 1) bool: positions behind which a label stands."""
        return self.labels[:, 1:] != IGNORE

    def to(self, device: torch.device | str) -> "Batch":
        return self._map(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """In page-locked memory, from which copies to a GPU do not wait; DataLoader calls it."""
        return self._map(lambda x: x.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        inputs = {k: change(x) if isinstance(x, Tensor) else x for k, x in self.inputs.items()}
        where = None if self.label_positions is None else change(self.label_positions)
        return Batch(inputs, change(self.labels), change(self.sample_ids), self.rows, where)


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
            labels[i, : len(row)] = sample.labels
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        # Without these, Qwen2.5-VL falls back to one-dimensional positions and says nothing.
        "mm_token_type_ids": _modalities(input_ids, visual_ids),
        **_pixels(samples),
    }
    row_numbers = torch.arange(len(rows))[:, None].expand_as(input_ids)
    sample_ids = torch.where(attention_mask != 0, row_numbers, NO_SAMPLE)
    return Batch(inputs, labels, sample_ids, tuple(s.row.where for s in samples))


def prompt_inputs(
    samples: list[Sample], pad_id: int, visual_ids: tuple[int, ...], device: torch.device
) -> dict[str, Tensor]:
    """What a model's forward takes of prompts alone, padded on the left, on the device."""
    return collate(samples, pad_id, visual_ids, with_target=False).to(device).inputs


@dataclass(frozen=True)
class Collator:
    """Batches for training one model: padded or packed, with an image in each, and with what the
    vision tower would otherwise work out on the device."""

    pad_id: int
    visual_ids: tuple[int, ...]
    """``<|image_pad|>`` and ``<|video_pad|>``."""
    config: Any
    """The model's; says which family's rules apply."""
    dtype: torch.dtype
    """Of the model: pixels go to it in this one, which halves what a worker hands over."""

    @property
    def family(self) -> ModuleType:
        return family_named(self.config.model_type, "the configuration")

    def pad(self, samples: list[Sample]) -> Batch:
        """Samples side by side, targets included, padded on the right."""
        batch = collate(samples, self.pad_id, self.visual_ids)
        if "pixel_values" in batch.inputs:
            return self._for_model(batch)
        # One padded column more holds the blank image.
        inputs = {
            "input_ids": _with_column(batch.inputs["input_ids"], self.pad_id),
            "attention_mask": _with_column(batch.inputs["attention_mask"], 0),
            **self.family.blank_image(self.config),
        }
        inputs["input_ids"][0, -1] = self.visual_ids[0]
        inputs["mm_token_type_ids"] = _modalities(inputs["input_ids"], self.visual_ids)
        labels = _with_column(batch.labels, IGNORE)
        sample_ids = _with_column(batch.sample_ids, NO_SAMPLE)
        return self._for_model(Batch(inputs, labels, sample_ids, batch.rows))

    def pack(self, samples: list[Sample]) -> Batch:
        """Samples end to end in one row; no sample sees another."""
        ids, labels, positions, sample_ids = [], [], [], []
        for i, sample in enumerate(samples):
            row = torch.cat([sample.prompt_ids, sample.target_ids])
            ids.append(row)
            labels.append(sample.labels)
            positions.append(self._positions(row, sample.image_grid_thw))
            sample_ids.append(torch.full_like(row, i))
        pixels = _pixels(samples)
        if not pixels:  # the blank image is a sequence of its own, which no sample sees
            pixels = self.family.blank_image(self.config)
            ids.append(torch.tensor([self.visual_ids[0]]))
            labels.append(torch.tensor([IGNORE]))
            positions.append(torch.zeros(4, 1, dtype=torch.int64))
            sample_ids.append(torch.tensor([NO_SAMPLE]))
        lengths = torch.tensor([len(row) for row in ids])
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        input_ids, packed_labels = torch.cat(ids)[None], torch.cat(labels)[None]
        inputs = {
            "input_ids": input_ids,
            "position_ids": torch.cat(positions, dim=1)[:, None],
            "mm_token_type_ids": _modalities(input_ids, self.visual_ids),
            "cu_seq_lens_q": offsets,
            "cu_seq_lens_k": offsets,
            "max_length_q": int(lengths.max()),
            "max_length_k": int(lengths.max()),
            **pixels,
        }
        behind = (packed_labels[0, 1:] != IGNORE).nonzero()[:, 0]
        rows = tuple(s.row.where for s in samples)
        return self._for_model(
            Batch(inputs, packed_labels, torch.cat(sample_ids)[None], rows, behind)
        )

    def _positions(self, ids: Tensor, grid: Tensor | None) -> Tensor:
        """(4, L): the text position, by which transformers tells samples apart, and the three
        rotary ones."""
        modalities = _modalities(ids[None], self.visual_ids)
        rotary = self.family.rope_positions(self.config, ids[None], modalities, grid)
        return torch.cat([torch.arange(len(ids))[None], rotary[:, 0]])

    def _for_model(self, batch: Batch) -> Batch:
        inputs = dict(batch.inputs)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        inputs |= self.family.vision_arguments(self.config, inputs["image_grid_thw"])
        return Batch(inputs, batch.labels, batch.sample_ids, batch.rows, batch.label_positions)


def _modalities(input_ids: Tensor, visual_ids: tuple[int, ...]) -> Tensor:
    """0 for text, 1 for an image token, 2 for a video token."""
    modalities = torch.zeros_like(input_ids, dtype=torch.int32)
    for i, visual in enumerate(visual_ids, start=1):
        modalities[input_ids == visual] = i
    return modalities


def _pixels(samples: list[Sample]) -> dict[str, Tensor]:
    pixels = [s.pixel_values for s in samples if s.pixel_values is not None]
    if not pixels:
        return {}
    grids = [s.image_grid_thw for s in samples if s.image_grid_thw is not None]
    return {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.cat(grids)}


def _with_column(rows: Tensor, value: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 1), value=value)
