"""Cuts the arguments of a text tower to a part of the tokens, in the same way for all families."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Split = Callable[[Tensor, int], Tensor]
"""(tensor, dimension of the tokens) -> this rank's part."""


def split_text_inputs(inputs: dict[str, Any], split: Split) -> dict[str, Any]:
    """Keyword arguments of a text tower's forward, cut to one part of the tokens.

    The padding mask becomes None: attention recognizes padding by its key type.
    """
    embeds, positions = inputs["inputs_embeds"], inputs.get("position_ids")
    if positions is None:  # else the tower would count from 0 in every part
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
        own_visual = split(visual, 1)
        rows = split(numbers, 1)[own_visual]
        features = [feature[rows] for feature in inputs["deepstack_visual_embeds"]]
        changed |= {"visual_pos_masks": own_visual, "deepstack_visual_embeds": features}
    return inputs | changed
