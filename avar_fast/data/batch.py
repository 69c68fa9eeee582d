"""Makes batches, the tensors of one forward: samples padded in rows, or packed in one row."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models import family_named
from .sample import IGNORE, Sample

NO_SAMPLE = -1  # in sample_ids: padding, and the blank image of a text-only batch


@dataclass(frozen=True)
class Batch:
    """Samples on one device, in the form that the model takes: B rows, L tokens."""

    inputs: dict[str, Any]
    """Arguments of the model's forward; packed samples have cu_seq_lens_q and so on, and
    prefix_index if some of them go on from a shared prompt."""
    labels: Tensor
    """(B, L) int64: trained token ids at their places in the input, ``IGNORE`` elsewhere."""
    sample_ids: Tensor
    """(B, L) int64: index of the sample that a token belongs to, or ``NO_SAMPLE``."""
    rows: tuple[str, ...]
    """Place of each sample's row, for messages."""
    label_positions: Tensor | None = None
    """(K,) int64: positions that predict a label, as indices into the flattened rows; None if no
    ``Collator`` made the batch."""

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(self.rows)

    @property
    def packed(self) -> bool:
        """Whether samples lie end to end in one row, instead of one per row with padding."""
        return "cu_seq_lens_q" in self.inputs

    @property
    def label_mask(self) -> Tensor:
        """(B, L - 1) bool: positions that predict a label."""
        return self.labels[:, 1:] != IGNORE

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device; the host does not wait for the copy."""
        return self._map(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which copies to a GPU are asynchronous. DataLoader
        calls it."""
        return self._map(lambda x: x.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        inputs = {k: change(x) if isinstance(x, Tensor) else x for k, x in self.inputs.items()}
        positions = None if self.label_positions is None else change(self.label_positions)
        return Batch(inputs, change(self.labels), change(self.sample_ids), self.rows, positions)


def collate(
    samples: list[Sample], pad_id: int, visual_ids: tuple[int, ...], with_target: bool = True
) -> Batch:
    """Makes a padded batch: prompts with targets padded on the right, or prompts alone padded on
    the left (for generation)."""
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
        # Without these, Qwen2.5-VL silently uses one-dimensional positions.
        "mm_token_type_ids": _modalities(input_ids, visual_ids),
        **_pixels(samples),
    }
    row_numbers = torch.arange(len(rows))[:, None].expand_as(input_ids)
    sample_ids = torch.where(attention_mask != 0, row_numbers, NO_SAMPLE)
    return Batch(inputs, labels, sample_ids, tuple(s.row.where for s in samples))


def prompt_inputs(
    samples: list[Sample], pad_id: int, visual_ids: tuple[int, ...], device: torch.device
) -> dict[str, Tensor]:
    """The arguments of the model's forward for prompts alone, padded on the left, on the device."""
    return collate(samples, pad_id, visual_ids, with_target=False).to(device).inputs


class PackedSequence(NamedTuple):
    """One sequence of a packed row: L tokens."""

    ids: Tensor
    """(L,) int64."""
    labels: Tensor
    """(L,) int64: trained token ids at their places, ``IGNORE`` elsewhere."""
    positions: Tensor
    """(4, L) int64, from ``Collator.positions``."""
    sample: int
    """Index of the sample that the tokens belong to, or ``NO_SAMPLE``."""
    prefix: int = -1
    """Index of the sequence that this one goes on from; -1: it begins by itself."""


@dataclass(frozen=True)
class Collator:
    """Makes padded or packed training batches for one model.

    Every batch has an image, a blank one if needed. Rotary positions, and indices for the vision
    tower, are computed here on the CPU, so that the model does not compute them on the device.
    """

    pad_id: int
    visual_ids: tuple[int, ...]
    """Ids of ``<|image_pad|>`` and ``<|video_pad|>``."""
    config: Any
    """Configuration of the model, which gives its family."""
    dtype: torch.dtype
    """The model's dtype. Pixels are converted to it here, so that workers send half the bytes."""

    @property
    def family(self) -> ModuleType:
        """The module of the model's family."""
        return family_named(self.config.model_type, "the configuration")

    def pad(self, samples: list[Sample]) -> Batch:
        """A batch of one sample per row, with targets, padded on the right."""
        batch = collate(samples, self.pad_id, self.visual_ids)
        if "pixel_values" in batch.inputs:
            return self._for_model(batch)
        # An additional padded column holds the blank image.
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
        """A batch of one row with all samples end to end; samples do not attend to each other."""
        sequences = []
        for i, sample in enumerate(samples):
            row = torch.cat([sample.prompt_ids, sample.target_ids])
            positions = self.positions(row, sample.image_grid_thw)
            sequences.append(PackedSequence(row, sample.labels, positions, i))
        return self.end_to_end(sequences, samples, tuple(s.row.where for s in samples))

    def end_to_end(
        self, sequences: list[PackedSequence], with_images: list[Sample], rows: tuple[str, ...]
    ) -> Batch:
        """A batch of one row with all sequences end to end. A sequence attends to itself and to its
        prefix.

        Args:
            sequences: the sequences, in the order of their images.
            with_images: the samples that give the images, each once.
            rows: place of each sample's row.
        """
        pixels = _pixels(with_images)
        if not pixels:  # the blank image is a separate sequence, which no sample attends to
            pixels = self.family.blank_image(self.config)
            ids, label = torch.tensor([self.visual_ids[0]]), torch.tensor([IGNORE])
            position = torch.zeros(4, 1, dtype=torch.int64)
            sequences = [*sequences, PackedSequence(ids, label, position, NO_SAMPLE)]
        lengths = torch.tensor([len(s.ids) for s in sequences])
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        input_ids = torch.cat([s.ids for s in sequences])[None]
        inputs = {
            "input_ids": input_ids,
            "position_ids": torch.cat([s.positions for s in sequences], dim=1)[:, None],
            "mm_token_type_ids": _modalities(input_ids, self.visual_ids),
            "cu_seq_lens_q": offsets,
            "cu_seq_lens_k": offsets,
            "max_length_q": int(lengths.max()),
            "max_length_k": int(lengths.max()),
            **pixels,
        }
        prefixes = torch.tensor([s.prefix for s in sequences], dtype=torch.int32)
        if (prefixes >= 0).any():
            inputs["prefix_index"] = prefixes
        labels = torch.cat([s.labels for s in sequences])[None]
        sample_ids = torch.cat([torch.full_like(s.ids, s.sample) for s in sequences])[None]
        return self._for_model(Batch(inputs, labels, sample_ids, rows))

    def positions(self, ids: Tensor, grid: Tensor | None) -> Tensor:
        """(4, L) int64: text positions, by which transformers separates samples, and the three
        rotary positions."""
        modalities = _modalities(ids[None], self.visual_ids)
        rotary = self.family.rope_positions(self.config, ids[None], modalities, grid)
        return torch.cat([torch.arange(len(ids))[None], rotary[:, 0]])

    def _for_model(self, batch: Batch) -> Batch:
        inputs = dict(batch.inputs)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        grid = inputs["image_grid_thw"]
        inputs |= self.family.vision_arguments(self.config, grid)
        if "position_ids" not in inputs:  # the model would wait for the device to compute them
            inputs["position_ids"] = self.family.rope_positions(
                self.config,
                inputs["input_ids"],
                inputs["mm_token_type_ids"],
                grid,
                inputs["attention_mask"],
            )
        predicts = torch.nn.functional.pad(batch.labels[:, 1:] != IGNORE, (0, 1))
        positions = predicts.flatten().nonzero()[:, 0]
        return Batch(inputs, batch.labels, batch.sample_ids, batch.rows, positions)


def _modalities(input_ids: Tensor, visual_ids: tuple[int, ...]) -> Tensor:
    """(B, L) int32: 0 for text, 1 for an image token, 2 for a video token."""
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
