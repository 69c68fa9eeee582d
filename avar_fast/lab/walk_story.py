"""Walks with hints, step by step: what the image shows, what the hint says, what a model reads, and
where it looks when it does."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from avar_kernels import KeyType
from PIL import Image
from torch import Tensor

from ..attention import record_maps
from ..data import Encoder, Row, collate
from ..data.images import open_image
from ..loading import Loaded
from .hint_scores import HintTokens
from .steps import predict_digits, predicting_positions
from .walk import CELL_NAMES
from .walk_hints import hint_digits
from .world import DEFAULT_SYSTEM

SIDE = 90  # of a picture, in its own units
SHARES = (("image", KeyType.VISUAL), ("system turn", KeyType.SYSTEM), ("text", KeyType.TEXT))
"""Parts of the bar under a picture, from the left, and their key types."""
STYLE = """<style>
.walks { display: grid; gap: 0 28px;
grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); }
.walks > div { min-width: 0; } .walks .scroll { margin-top: .3em; }
.steps { display: flex; gap: 10px; } .steps figure { flex: 0 0 82px; }
.steps figcaption { text-align: center; font-size: 12px; }
.hint { font: 12px ui-monospace, monospace; text-align: center; margin: 4px 0 0; }
.hint i { font-style: normal; padding: 1px; border-radius: 2px; }
.shares { display: flex; height: 8px; margin: 4px 0 0; border-radius: 3px; overflow: hidden; }
.share-1 { background: var(--c1); } .share-2 { background: var(--c0); }
.share-0 { background: var(--c5); }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
margin: 0 .3em 0 .6em; }
.is-right { color: var(--c2); } .is-hint { color: var(--c0); } .is-wrong { color: var(--c3); }
</style>"""
INTRO = """
<h2>What a model sees, what tempts it, what it does</h2>
<p>An image shows handwritten digits in cells, named A, B, ... row by row. A walk starts at the cell
that the question names. It reads the cell's digit d, goes d + 1 cells on (after the last cell comes
A again), reads there, and so on. Every step needs a fresh look at the image.</p>
<p>But the system turn ends with a hint: a walk that was written down before. In the rows of the
cold start it is the walk of this image {right:.0%} of the time. Copying it is easier than reading
pale, noisy digits. Here the hint is that of another image, so a model that copies it is wrong.</p>
<p>Each picture is one step, with the true steps before it given. The frame marks the
cell to be read. Heat shows where attention is when the digit is predicted: red on the image, blue
on the hint below it. The bar is attention by key type, mean over layers and heads:{key}. The model
reads the digit <b class="is-right">right</b>, as the <b class="is-hint">hint</b> has it, or
<b class="is-wrong">wrong</b> in another way. It can look at the right cell and still read the
hint's digit: tokens of the question may have carried it there.</p>"""


@dataclass(frozen=True)
class Step:
    """One step of a walk with a hint, the true steps before it given."""

    cell: int
    """The cell that is read, an index into the flattened board."""
    digit: int
    """The digit that it shows."""
    hinted: int
    """The digit that the hint has at this step."""
    read: int
    """The digit that the model predicts."""
    looks: list[list[float]]
    """(rows, columns) attention on each visual token where the digit is predicted, mean over layers
    and heads."""
    hint_looks: list[float]
    """The same for each character of the hint."""
    masses: list[float]
    """The same for the keys of each type."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``Step(**...)`` reads it."""
        return asdict(self)


@torch.no_grad()
def walk_steps(loaded: Loaded, row: Row) -> list[Step]:
    """The steps of one walk with a hint, as a model with attention attached reads them."""
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    sample, meta = encoder(row), row.columns["meta"]
    steps = len(meta["digits"])
    log_probs, masses = predict_digits(loaded, encoder, [sample], digit_ids, steps)
    batch = collate([sample], loaded.tokenizer.pad_token_id, encoder.tokens.visual)
    reading = torch.zeros_like(batch.inputs["input_ids"], dtype=torch.bool)
    reading[0, predicting_positions(sample, digit_ids, steps)] = True

    def looks_at(key_type: int) -> tuple[Tensor, Tensor]:
        """(K, keys) weights, mean over layers, and (keys,) positions of the keys."""
        with record_maps(loaded.model, reading, key_type) as maps:
            loaded.model(**batch.inputs, use_cache=False)
        assert maps.keys is not None
        weights = torch.stack([rows[0] for rows in maps.weights.values()]).mean(dim=0)
        return weights, maps.keys[0].nonzero()[:, 0]

    ids = batch.inputs["input_ids"]
    hint = HintTokens(loaded.tokenizer)(ids, torch.full_like(ids, -1))[0].ge(0).nonzero()[:, 0]
    characters = hint[-1 - len(meta["hint"]) : -1]  # a full stop ends the hint
    on_image, _ = looks_at(KeyType.VISUAL)
    on_system, system = looks_at(KeyType.SYSTEM)
    on_hint = on_system[:, torch.searchsorted(system, characters)]
    assert sample.image_grid_thw is not None
    sides = (sample.image_grid_thw[0, 1:] // loaded.image_processor.merge_size).tolist()
    numbers = zip(
        meta["cells"],
        meta["digits"],
        hint_digits(meta["hint"]),
        log_probs[0].argmax(-1).tolist(),
        on_image.view(steps, *sides).tolist(),
        on_hint.tolist(),
        masses.mean(dim=(0, 3))[0].tolist(),
        strict=True,
    )
    return [Step(*step) for step in numbers]


def story(rows: Sequence[Row], steps: Mapping[str, Sequence[Sequence[Step]]], right: float) -> str:
    """HTML: what the task is and what tempts a model, then each walk as each model reads it.

    Args:
        rows: the walks.
        steps: {name of the model: its steps of each walk}.
        right: how frequently hints of the training rows are right.
    """
    key = ",".join(f'<b class="swatch share-{kind:d}"></b>{name}' for name, kind in SHARES)
    parts = [STYLE, INTRO.format(right=right, key=key)]
    for number, row in enumerate(rows):
        image = open_image(row.images[0], row.where)
        (question,) = (part["text"] for part in row.messages[-1]["content"] if part.get("text"))
        meta = row.columns["meta"]
        parts.append(
            f"<h3>{html.escape(question.strip())} The image says {row.columns['reasoning']}, the"
            f" hint {meta['hint']}.</h3>"
        )
        parts.append('<div class="walks">')
        for name, walks in steps.items():
            pictures = "".join(_step(image, meta["hint"], step) for step in walks[number])
            parts.append(
                f'<div><b class="note">{html.escape(name)}</b>'
                f'<div class="scroll"><div class="steps">{pictures}</div></div></div>'
            )
        parts.append("</div>")
    return "".join(parts)


def _step(image: Image.Image, hint: str, step: Step) -> str:
    kind = "right" if step.read == step.digit else "wrong"
    if kind == "wrong" and step.read == step.hinted:
        kind = "hint"
    letters = "".join(
        f'<i style="background:rgb(0 105 180 / {0.7 * look:.3f})"'
        f' title="{100 * look:.1f}%">{character}</i>'
        for character, look in zip(hint, step.hint_looks, strict=True)
    )
    shares = "".join(
        f'<span class="share-{key_type:d}" style="flex:{step.masses[key_type]:.4f}"'
        f' title="{name}: {step.masses[key_type]:.0%}"></span>'
        for name, key_type in SHARES
    )
    return (
        f"<figure><figcaption>{CELL_NAMES[step.cell]} is {step.digit}<br>hint {step.hinted}<br>"
        f'<b class="is-{kind}">reads {step.read}</b></figcaption>'
        f'{_picture(image, step)}<p class="hint">{letters}</p><div class="shares">{shares}</div>'
        "</figure>"
    )


def _picture(image: Image.Image, step: Step) -> str:
    """The board under the step's attention, with a frame around the cell to be read."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{SIDE}" height="{SIDE}"'
    parts = [f'<image href="data:image/png;base64,{data}" {size} preserveAspectRatio="none"/>']
    columns = len(step.looks[0])
    side = SIDE / columns  # a token is a cell of a square board
    for index, look in enumerate(value for line in step.looks for value in line):
        x, y = index % columns * side, index // columns * side
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}"'
            f' fill="#ff3b00" fill-opacity="{0.7 * look:.3f}">'
            f"<title>{100 * look:.1f}%</title></rect>"
        )
    x, y = step.cell % columns * side, step.cell // columns * side
    parts.append(
        f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}"'
        ' fill="none" stroke="#00e5ff" stroke-width="2"/>'
    )
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="the image, with attention">'
        f"{''.join(parts)}</svg>"
    )
