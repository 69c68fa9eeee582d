"""Tokens per second and model FLOPs utilization (MFU) of a step, for the log.

    MFU = model FLOPs of the step / (seconds * ranks * peak FLOP/s of a device)

``avar_fast.models.flops`` counts model FLOPs. The peak is ``tracking.peak_tflops`` if it is set,
else the vendor's data sheet value for the GPU (dense, bfloat16 or float16 with float32 sums). On
other devices and in float32 there is no peak, and MFU is null.
"""

from dataclasses import dataclass

import torch

from ..config import Recipe
from ..data import IGNORE, NO_SAMPLE, Batch, ResponseBatch
from ..models.flops import ModelFlops, Work

# Peak TFLOP/s by a part of the device's name; the first match is used.
PEAK_TFLOPS = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("H200", 989.4),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("H800", 989.4),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L20", 119.5),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("RTX A6000", 154.8),
    ("MI300X", 1307.4),
    ("MI325X", 1307.4),
)


def peak_tflops(recipe: Recipe, device: torch.device) -> float | None:
    """The peak TFLOP/s that MFU refers to; None if it is unknown."""
    if recipe.tracking.peak_tflops is not None:
        return recipe.tracking.peak_tflops
    if device.type != "cuda" or recipe.model.dtype == "float32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS if part in name), None)


@dataclass(frozen=True)
class Throughput:
    """Computes the log's throughput metrics from the work and time of a step."""

    flops: ModelFlops
    """FLOPs of the model's forward and training passes."""
    peak_tflops: float | None
    """Peak TFLOP/s of a device; None if it is unknown."""
    world_size: int

    def metrics(self, tokens: float, flops: float, seconds: float) -> dict[str, float | None]:
        """The throughput metrics of a step.

        Args:
            tokens, flops: sums over all ranks.
            seconds: time from the request for the batch to the update of the weights.
        """
        tflops = flops / seconds / 1e12 / self.world_size
        peak = self.peak_tflops
        return {
            "tokens_per_s": tokens / seconds,
            "tflops_per_rank": tflops,
            "mfu": None if peak is None else tflops / peak,
        }


def work_of(batch: Batch) -> Work:
    """The amount of work that a batch is for the model. Call it before the batch goes to the
    device."""
    exists = batch.sample_ids != NO_SAMPLE
    images, windows = (
        batch.inputs[name].diff().double() if name in batch.inputs else torch.zeros(1).double()
        for name in ("image_cu_seqlens", "image_cu_window_seqlens")
    )
    patches = float(images.sum())
    visual = batch.inputs["mm_token_type_ids"] != 0
    return Work(
        tokens=float(exists.sum()),
        pairs=_pairs(batch),
        labels=float((batch.labels[:, 1:] != IGNORE).sum()),
        patches=patches,
        vision_pairs=float(images.square().sum()),
        window_pairs=float(windows.square().sum()),
        merged_tokens=float(visual.sum()),
    )


def work_of_responses(responses: ResponseBatch) -> Work:
    """The same of a batch of responses. A shared prompt counts once."""
    return work_of(responses.batch)._replace(labels=float(len(responses.tokens)))


def _pairs(batch: Batch) -> float:
    """Pairs of a query and a key that it attends to."""
    prefixes = batch.inputs.get("prefix_index")
    if prefixes is None:
        lengths = torch.bincount(batch.sample_ids[batch.sample_ids != NO_SAMPLE]).double()
        return float((lengths * (lengths + 1)).sum() / 2)
    offsets = batch.inputs["cu_seq_lens_q"].long()
    lengths = offsets.diff().double()
    first = offsets[:-1].clamp(max=batch.sample_ids.shape[1] - 1)
    lengths[batch.sample_ids[0, first] == NO_SAMPLE] = 0.0  # the blank image of a text-only batch
    with_prefix = prefixes >= 0
    of_prefix = lengths[prefixes[with_prefix].long()]
    own = (lengths * (lengths + 1)).sum() / 2
    return float(own + (lengths[with_prefix] * of_prefix).sum())
