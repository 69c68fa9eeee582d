"""Computes model inputs from a model's configuration alone, for workers that have no model.

The functions are transformers' own. They are the same in all families, apart from the additions in
each family's file. They are imported where they are called, because the attention plug-in also
works with releases of transformers that lack them.
"""

from typing import Any

import torch
from torch import Tensor


class _Rule:
    """Stands in for a model in ``get_rope_index``, which reads only the configuration."""

    def __init__(self, model_class: Any, config: Any) -> None:
        self.model_class, self.config = model_class, config

    def get_vision_position_ids(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.model_class.get_vision_position_ids(self, *args, **kwargs)


def rope_positions(
    model_class: Any,
    config: Any,
    input_ids: Tensor,
    mm_token_type_ids: Tensor,
    image_grid_thw: Tensor | None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """(3, B, L) rotary positions in time, height and width by the model's ``get_rope_index``."""
    rule, grids = _Rule(model_class, config), {"image_grid_thw": image_grid_thw}
    found = model_class.get_rope_index(
        rule, input_ids, mm_token_type_ids, **grids, attention_mask=attention_mask
    )
    return found[0]


def blank_image(config: Any) -> dict[str, Tensor]:
    """Pixels of an image with one visual token, for text-only batches. With it the vision tower
    takes part in every forward and backward, as sharded and bucketed gradients require."""
    vision = config.vision_config
    merge, patch = vision.spatial_merge_size, vision.patch_size
    channels = vision.in_channels * vision.temporal_patch_size * patch**2
    return {
        "pixel_values": torch.zeros(merge**2, channels),
        "image_grid_thw": torch.tensor([[1, merge, merge]]),
    }


def vision_arguments(config: Any, image_grid_thw: Tensor) -> dict[str, Any]:
    """Indices and offsets that a vision tower needs, as arguments of the model's forward. Without
    them it computes them from the grid and waits for the device."""
    from transformers import vision_utils

    merge = config.vision_config.spatial_merge_size
    offsets = vision_utils.get_vision_cu_seqlens(image_grid_thw)
    return {
        "image_position_ids": vision_utils.get_vision_position_ids(image_grid_thw, merge),
        "image_cu_seqlens": offsets,
        **longest("image_max_seqlen", offsets),
    }


def longest(name: str, offsets: Tensor) -> dict[str, int]:
    """{name: longest sequence}; empty if the installed transformers does not take this argument."""
    from transformers import vision_utils

    takes = hasattr(vision_utils, "get_vision_attention_seqlens")
    return {name: int(offsets.diff().max())} if takes else {}
