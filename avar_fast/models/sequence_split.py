"""What a text tower is called with, cut to a stretch of the tokens; alike in all families."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Split = Callable[[Tensor, int], Tensor]
"""A tensor and its dimension of tokens -> the stretch."""


def split_text_inputs(inputs: dict[str, Any], split: Split) -> dict[str, Any]:
    """Keyword arguments of a text tower's forward, for one stretch of the tokens.

    The padding mask goes: attention knows absent keys by their type.
    """
    embeds, positions = inputs["inputs_embeds"], inputs.get("position_ids")
    if positions is None:  # the tower would count from 0 in every stretch
        positions = torch.arange(embeds.shape[1], device=embeds.device)
        positions = positions.expand(3, *embeds.shape[:2])
    changed = {
        "inputs_embeds": split(embeds, 1),
        "position_ids": split(positions, positions.dim() - 1),
        "attention_mask": None,
    }
    visual = inputs.get("visual_pos_masks")
    if visual is not None:  # Qwen3-VL's deepstack features: one row per visual token, row by row
        numbers = (visual.flatten().cumsum(0) - 1).view_as(visual)
        mine = split(visual, 1)
        rows = split(numbers, 1)[mine]
        features = [feature[rows] for feature in inputs["deepstack_visual_embeds"]]
        changed |= {"visual_pos_masks": mine, "deepstack_visual_embeds": features}
    return inputs | changed
