"""Walks step by step: what the image shows, what the rule suggests, what a model reads, and where
it looks when it does."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..attention import record_maps
from ..data import Encoder, Row, collate
from ..data.images import open_image
from ..loading import Loaded
from .steps import predicting_positions
from .tokenizer import DEFAULT_SYSTEM
from .walk import CELL_NAMES, rule_digit

SIDE = 112  # of a picture, in its own units
STYLE = """<style>
.steps { display: flex; gap: 10px; } .steps figure { flex: 0 0 112px; }
.steps figcaption { text-align: center; }
.is-right { color: var(--c2); } .is-tempted { color: var(--c1); } .is-wrong { color: var(--c3); }
</style>"""

INTRO = """
<h2>What the models see, what tempts them, what they do</h2>
<p>An image shows handwritten digits in cells, named A, B, ... row by row. A walk starts at the cell
that the question names. It reads the cell's digit d, goes d + 1 cells on (after the last cell comes
A), reads there, and so on. Every step needs a fresh look. In the cold start's rows, though, the
digit after d is ({first} - d) modulo 10 in {prior} of the steps, and the images are pale and noisy.
A model can guess the digit instead of looking. The walks here do not follow that rule.</p>
<p>Each picture is one step, with the true steps before it given. Red cells get the attention
where the digit is predicted; a frame marks the cell to be read. <b class="is-right">Green</b>:
right. <b class="is-tempted">Orange</b>: the rule's digit. <b class="is-wrong">Purple</b>: another
wrong one.</p>"""


@dataclass(frozen=True)
class Step:
    """One step of a walk, with the true steps before it given."""

    cell: int
    """The cell that is read, an index into the flattened board."""
    digit: int
    """The digit that it shows."""
    tempting: int | None
    """The digit that the rule suggests; None at the first step."""
    read: int
    """The digit that the model predicts."""
    looks: Tensor
    """(rows, columns) float32: attention on each visual token where the digit is predicted, mean
    over layers and heads."""


@torch.no_grad()
def walk_steps(loaded: Loaded, row: Row) -> list[Step]:
    """The steps of one walk, as a model with attention attached reads them."""
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    sample = encoder(row)
    cells, digits = row.columns["meta"]["cells"], row.columns["meta"]["digits"]
    at = predicting_positions(sample, digit_ids, len(digits))
    batch = collate([sample], loaded.tokenizer.pad_token_id, encoder.tokens.visual)
    reading = torch.zeros_like(batch.inputs["input_ids"], dtype=torch.bool)
    reading[0, at] = True
    with record_maps(loaded.model, reading) as maps:
        logits = loaded.model(**batch.inputs, use_cache=False).logits
    weights = torch.stack([rows[0] for rows in maps.weights.values()]).mean(dim=0)
    assert sample.image_grid_thw is not None
    sides = (sample.image_grid_thw[0, 1:] // loaded.image_processor.merge_size).tolist()
    read = logits[0, at][:, digit_ids].argmax(-1).tolist()
    tempting = [None, *(rule_digit(digit) for digit in digits[:-1])]
    return [
        Step(*step, looks.view(*sides))
        for *step, looks in zip(cells, digits, tempting, read, weights, strict=True)
    ]


def story(rows: Sequence[Row], steps: Mapping[str, Sequence[Sequence[Step]]], prior: float) -> str:
    """HTML: what the task is and what tempts a model, then each walk as each model reads it.

    Args:
        rows: the walks.
        steps: {name of the model: its steps of each walk}.
        prior: how frequently the training rows follow the rule.
    """
    top = max(
        float(step.looks.max()) for walks in steps.values() for walk in walks for step in walk
    )
    parts = [STYLE, INTRO.format(first=rule_digit(0), prior=f"{prior:.0%}")]
    for number, row in enumerate(rows):
        image = open_image(row.images[0], row.where)
        (question,) = (part["text"] for part in row.messages[-1]["content"] if part.get("text"))
        parts.append(
            f"<h3>{html.escape(question.strip())} The image says"
            f" {html.escape(row.columns['reasoning'])}.</h3>"
        )
        for name, walks in steps.items():
            pictures = "".join(_step(image, step, top) for step in walks[number])
            parts.append(
                f'<p class="note">{html.escape(name)}</p>'
                f'<div class="scroll"><div class="steps">{pictures}</div></div>'
            )
    return "".join(parts)


def _step(image: Image.Image, step: Step, top: float) -> str:
    kind = "right" if step.read == step.digit else "wrong"
    if kind == "wrong" and step.read == step.tempting:
        kind = "tempted"
    rule = "" if step.tempting is None else f", rule {step.tempting}"
    return (
        f"<figure><figcaption>{CELL_NAMES[step.cell]}: is {step.digit}{rule}<br>"
        f'<b class="is-{kind}">reads {step.read}</b></figcaption>{_picture(image, step, top)}'
        "</figure>"
    )


def _picture(image: Image.Image, step: Step, top: float) -> str:
    """The board under the step's attention, with a frame around the cell to be read."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{SIDE}" height="{SIDE}"'
    parts = [f'<image href="data:image/png;base64,{data}" {size} preserveAspectRatio="none"/>']
    rows, columns = step.looks.shape
    width, height = SIDE / columns, SIDE / rows
    for index, value in enumerate(step.looks.flatten().tolist()):
        x, y = index % columns * width, index // columns * height
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' fill="#ff3b00" fill-opacity="{0.8 * value / top:.3f}">'
            f"<title>{100 * value:.1f}%</title></rect>"
        )
    x, y = step.cell % columns * width, step.cell // columns * height  # a token is a cell
    parts.append(
        f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{height - 2:.1f}"'
        ' fill="none" stroke="#00e5ff" stroke-width="2"/>'
    )
    return f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img">{"".join(parts)}</svg>'
