"""Tokens per second and model FLOPs utilization (MFU) of a step, for the log.

    MFU = model FLOPs of the step / (seconds * ranks * peak FLOP/s of a device)

Model FLOPs as ``avar_fast.models.flops`` counts them. The peak is ``tracking.peak_tflops``, or that
of the GPU's name in the vendors' data sheets (dense, bfloat16 or float16 with float32 sums); on
other devices and in float32 there is none, and MFU is null.
"""

from dataclasses import dataclass

import torch

from ..config import Recipe
from ..data import IGNORE, NO_SAMPLE, Batch
from ..models.flops import ModelFlops, Work

# TFLOP/s by a part of the device's name; the first that fits counts.
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
    """The peak that MFU is a share of; None where it is not known."""
    if recipe.tracking.peak_tflops is not None:
        return recipe.tracking.peak_tflops
    if device.type != "cuda" or recipe.model.dtype == "float32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS if part in name), None)


@dataclass(frozen=True)
class Throughput:
    """What turns a step's work and time into the log's figures."""

    flops: ModelFlops
    peak_tflops: float | None
    world_size: int

    def metrics(self, tokens: float, flops: float, seconds: float) -> dict[str, float | None]:
        """Figures of a step.

        Args:
            tokens, flops: over all ranks.
            seconds: from before the batch was asked for to the weights' change.
        """
        tflops = flops / seconds / 1e12 / self.world_size
        peak = self.peak_tflops
        return {
            "tokens_per_s": tokens / seconds,
            "tflops_per_rank": tflops,
            "mfu": None if peak is None else tflops / peak,
        }


def work_of(batch: Batch) -> Work:
    """What a batch asks of the model; before it goes to the device."""
    lengths = torch.bincount(batch.sample_ids[batch.sample_ids != NO_SAMPLE]).double()
    images, windows = (
        batch.inputs[name].diff().double() if name in batch.inputs else torch.zeros(1).double()
        for name in ("image_cu_seqlens", "image_cu_window_seqlens")
    )
    patches = float(images.sum())
    visual = batch.inputs["mm_token_type_ids"] != 0
    return Work(
        tokens=float(lengths.sum()),
        pairs=float((lengths * (lengths + 1)).sum() / 2),
        labels=float((batch.labels[:, 1:] != IGNORE).sum()),
        patches=patches,
        vision_pairs=float(images.square().sum()),
        window_pairs=float(windows.square().sum()),
        merged_tokens=float(visual.sum()),
    )
