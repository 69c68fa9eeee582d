"""Objectives on parts of the image: key types of one's own, in ten lines each.

``InBoxes`` gives the image tokens inside each row's box a type of their own, ``BOX``. With it:

- a loss that raises attention on the box: ``agto_loss(..., visual=BOX)``;
- a reward for looking at the box: ``visual_reward(..., visual=BOX)``;
- an intervention on it: ``intervene(model, scales={BOX: 2.0}, form="weights")``.

``Sinks`` gives a type of their own to image tokens that draw attention whatever is asked, so that
neither the score nor the objectives count them as looking.
"""

import torch
from avar_kernels import KeyType

import avar_fast.attention as aa
from avar_fast.objectives import agto_loss, visual_reward

BOX = SINK = 3


class InBoxes:
    """``attach(model, processor, num_types=4, classify=InBoxes())``; set ``grids`` and ``boxes``
    before each batch of rows with one image each."""

    grids: list[tuple[int, int]]
    """Per row (rows, columns) of visual tokens: image_grid_thw[1:] // merge_size."""
    boxes: list[tuple[float, float, float, float]]
    """Per row (left, top, right, bottom) as shares of the image."""

    def __call__(self, ids, types):
        for row, ((height, width), box) in enumerate(zip(self.grids, self.boxes, strict=True)):
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            x, y = (x + 0.5) / width, (y + 0.5) / height
            inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
            at = (types[row] == KeyType.VISUAL).nonzero()[:, 0]
            types[row, at[inside.flatten().to(at.device)]] = BOX
        return types


def loss_with_boxes(model, inputs, labels, weight=0.15):
    """The LM loss, and a term that raises the attention of the response's tokens on the boxes."""
    with aa.record_attention(model) as recording:
        loss = model(**inputs, labels=labels).loss
    queries = recording.queries("response")
    on_boxes, _ = agto_loss(
        recording.mass, queries, recording.key_types, alpha=weight, beta=0.0, visual=BOX
    )
    return loss, on_boxes


@torch.no_grad()
def box_reward(model, inputs, correct):
    """Per row: how much the response looks at the box, against the system turn; 0 if it is
    wrong."""
    with aa.record_attention(model) as recording:
        model(**inputs)
    response = recording.queries("response")
    return visual_reward(recording.mass, response, correct, form="share", visual=BOX)


class Sinks:
    """``attach(model, processor, num_types=4, classify=Sinks(numbers))`` with the numbers of the
    image tokens, counted from 0 in each row, that ``find_sinks`` gives."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __call__(self, ids, types):
        visual = types == KeyType.VISUAL
        number = visual.cumsum(dim=1) - 1
        is_sink = visual & torch.isin(number, torch.tensor(self.numbers, device=ids.device))
        return torch.where(is_sink, SINK, types)


@torch.no_grad()
def find_sinks(model, batches, times=5.0):
    """The numbers of image tokens that get more than ``times`` the mean weight, over batches of
    rows with images of one size."""
    totals = []
    for inputs in batches:
        with aa.record_maps(model, "response") as maps:
            model(**inputs, use_cache=False)
        for layer in maps.weights.values():
            totals += [weights.mean(dim=0) for weights in layer if len(weights)]
    if not totals:
        raise ValueError("the rows must have responses, whose attention is read; none has one.")
    mean = torch.stack(totals).mean(dim=0)
    return (mean > times * mean.mean()).nonzero()[:, 0].tolist()
