"""The page of ``studies look``: images with the attention of each token of the answers over them.

One file without links: its script and data are inside. Point at a token, or move with the keyboard,
and the image shows what that token looked at; without a script the mean over the answer is shown.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from ..characters import visible
from .response_maps import ResponseMaps

LONGEST_SIDE = 768  # pixels of an image in the page
SHOWN_SIDES = 160, 640  # pixels of the longer side of an image on the screen, least and most
THINNEST = 16  # pixels on the screen: a strip of one pixel has tokens too
SHARES = (("image", 1), ("system turn", 2), ("text", 0))
"""Curves of the chart, from the bottom up, and their key types."""
STYLE = """
.row { padding: 1em 0; }
.models { display: flex; flex-wrap: wrap; gap: 2em; }
.model { flex: 1 1 340px; min-width: 0; max-width: 640px; }
.seen { position: relative; display: inline-block; max-width: 100%; line-height: 0;
margin: 0 8px 8px 0; vertical-align: top; }
.seen img { max-width: 100%; height: auto; display: block; image-rendering: pixelated; }
.heat { position: absolute; inset: 0; display: grid; }
.heat i { background: #ff3b00; }
.tokens { line-height: 1.9; overflow-wrap: anywhere; white-space: pre-wrap; }
.tokens span { cursor: pointer; border-bottom: 3px solid; border-radius: 2px; }
.tokens span:focus, .tokens span:hover, .tokens .on { outline: 2px solid #1b6ca8; }
.chart { width: 100%; height: 90px; display: block; }
.key span { white-space: nowrap; }
.key b { display: inline-block; width: .8em; height: .8em; border-radius: 2px; }
.key b { margin: 0 .3em 0 1em; }
.share-0 { fill: #9aa5b1; background: #9aa5b1; } .share-1 { fill: #e4572e; background: #e4572e; }
.share-2 { fill: #1b6ca8; background: #1b6ca8; }
"""
SCRIPT = """
for (const model of document.querySelectorAll('.model')) {
  const data = JSON.parse(model.querySelector('script').textContent);
  const maps = data.maps.map(text => Uint8Array.from(atob(text), c => c.charCodeAt(0)));
  const heats = [...model.querySelectorAll('.heat')], note = model.querySelector('.note');
  const spans = [...model.querySelectorAll('.tokens span')], mean = note.textContent;
  const before = heats.map(heat => [...heat.children].map(cell => cell.style.opacity));
  const show = at => {
    spans.forEach((span, i) => span.classList.toggle('on', i === at));
    heats.forEach((heat, i) => {
      const size = heat.children.length;
      [...heat.children].forEach((cell, j) => {
        cell.style.opacity = at < 0 ? before[i][j] : maps[i][at * size + j] / 300;
      });
    });
    note.textContent = at < 0 ? mean : data.notes[at];
  };
  let kept = -1;
  spans.forEach((span, at) => {
    span.addEventListener('mouseenter', () => show(at));
    span.addEventListener('focus', () => show(at));
    span.addEventListener('click', () => show(kept = kept === at ? -1 : at));
    span.addEventListener('keydown', event => {
      const next = at + (event.key === 'ArrowRight') - (event.key === 'ArrowLeft');
      if (next !== at && spans[next]) { spans[next].focus(); event.preventDefault(); }
    });
  });
  model.querySelector('.tokens').addEventListener('mouseleave', () => show(kept));
}
"""


def look_parts(title: str, intro: str, rows: Sequence[Mapping[str, ResponseMaps]]) -> list[str]:
    """The HTML parts of the page.

    Args:
        title, intro: plain text.
        rows: per row {name of the model: its answer and maps}.
    """
    head = f"<h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p>"
    key = "".join(f'<span><b class="share-{kind}"></b>{name}</span> ' for name, kind in SHARES)
    how = (
        '<p class="key">Point at a token of an answer, or use the arrow keys, to see what it looked'
        " at when it was written; the line under it is its attention to the image. Red compares"
        " parts of the images and tokens of one answer: the most attention is the reddest, however"
        " little it is. The numbers and the chart tell how little. The chart shows the shares of"
        f" attention along the answer: {key}</p>"
    )
    body = [_row(number, models) for number, models in enumerate(rows, start=1)]
    return [f"<style>{STYLE}</style>", head, how, *body, f"<script>{SCRIPT}</script>"]


def _row(number: int, models: Mapping[str, ResponseMaps]) -> str:
    first = next(iter(models.values()))
    answer = "" if first.answer is None else f" (answer: <bdi>{_escape(first.answer)}</bdi>)"
    blocks = "".join(_model(name, maps) for name, maps in models.items())
    question = _escape(first.question.strip())
    return (
        f'<section class="row"><h2>{number}. <bdi>{question}</bdi>{answer}</h2>'
        f'<div class="models">{blocks}</div></section>'
    )


def _model(name: str, maps: ResponseMaps) -> str:
    top = max(float(one.max()) for one in maps.maps)
    strongest_mean = max(*(float(one.mean(dim=0).max()) for one in maps.maps), 1e-30)
    images = zip(maps.images, maps.maps, strict=True)
    shares = [f"{100 * float(maps.masses[:, kind].mean()):.1f} % {name}" for name, kind in SHARES]
    notes = [_note(piece, mass) for piece, mass in zip(maps.pieces, maps.masses, strict=True)]
    data = {"maps": [_bytes(one / max(top, 1e-30)) for one in maps.maps], "notes": notes}
    strongest = max(float(maps.masses[:, 1].max()), 1e-30)
    looks = (maps.masses[:, 1] / strongest).tolist()
    tokens = "".join(
        f'<span tabindex="0" style="border-color:rgb(228 87 46 / {look:.2f})">'
        f"{_escape(piece) or '&middot;'}</span>"
        for piece, look in zip(maps.pieces, looks, strict=True)
    )
    return (
        f'<div class="model"><h3>{html.escape(name)}</h3>'
        f"{''.join(_seen(image, one / strongest_mean) for image, one in images)}"
        f'<p class="note">mean over the answer: {", ".join(shares)}; {maps.num_image_tokens} image'
        " tokens</p>"
        f'<p class="tokens">{_escape(maps.opened)}{tokens}</p>{_chart(maps.masses)}'
        f'<script type="application/json">{_json(data)}</script></div>'
    )


def _note(piece: str, mass: Tensor) -> str:
    shares = ", ".join(f"{100 * float(mass[kind]):.1f} % {name}" for name, kind in SHARES)
    blank = "a line break" if "\n" in piece else "a space" if piece else "part of a character"
    return f"{visible(piece.strip()) or blank}: {shares}"


def _escape(text: str) -> str:
    return html.escape(visible(text))


def _seen(image: Image.Image, one: Tensor) -> str:
    """An image under the mean of its maps, which are at most 1."""
    mean = one.mean(dim=0)
    rows, columns = mean.shape
    cells = "".join(f'<i style="opacity:{0.85 * float(x):.3f}"></i>' for x in mean.flatten())
    grid = f"grid-template:repeat({rows},1fr)/repeat({columns},1fr)"
    return (
        f'<div class="seen"><img alt="the image of the question" style="{_size(image)}"'
        f' src="{_image_data(image)}">'
        f'<div class="heat" style="{grid}">{cells}</div></div>'
    )


def _size(image: Image.Image) -> str:
    """The size on the screen. Small images are enlarged, and strips are made wider."""
    longest, (least, most) = max(image.size), SHOWN_SIDES
    scale = min(max(longest, least), most) / longest
    width, height = (max(round(scale * side), THINNEST) for side in image.size)
    return f"width:{width}px;aspect-ratio:{width}/{height}"


def _image_data(image: Image.Image) -> str:
    shown = image.convert("RGB")
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    small = max(shown.size) < 256  # drawings lose more in JPEG than they save
    shown.save(buffer, format="PNG" if small else "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'png' if small else 'jpeg'};base64,{data}"


def _bytes(shares: Tensor) -> str:
    """Values from 0 to 1 as base64 of bytes, in order."""
    levels = (255 * shares).round().to(torch.uint8)
    return base64.b64encode(bytes(levels.flatten().tolist())).decode()


def _chart(masses: Tensor) -> str:
    """Stacked shares along the answer, one step per token."""
    steps, base, shapes = len(masses), torch.zeros(len(masses)), []
    for name, kind in SHARES:
        top = base + masses[:, kind]
        upper = [f"{x + side},{1 - float(top[x]):.4f}" for x in range(steps) for side in (0, 1)]
        lower = [f"{x + side},{1 - float(base[x]):.4f}" for x in range(steps) for side in (0, 1)]
        points = " ".join(upper + lower[::-1])
        shapes.append(
            f'<polygon class="share-{kind}" points="{points}"><title>{name}</title></polygon>'
        )
        base = top
    return (
        f'<svg class="chart" viewBox="0 0 {steps} 1" preserveAspectRatio="none" role="img"'
        f' aria-label="shares of attention along the answer">{"".join(shapes)}</svg>'
    )


def _json(data: object) -> str:
    """JSON that may stand inside a script element, whatever text it holds."""
    return json.dumps(data).replace("<", "\\u003c")
