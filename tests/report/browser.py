"""Looks at a page in a headless browser, in a frame of a given width."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), None)
SCHEMES = {"dark": 0, "light": 1}
SECONDS = 120
IMAGE = re.compile(r'<(?:img|image)\b[^>]*?(?:src|href)="([^"]*)"')

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no headless browser is installed")

# Runs in the page around the frame, as the page itself has no script.
LOOK = """
const [LIMIT, LEAST_CONTRAST] = [1.0, 4.5];
const name = e => e.tagName + ' "' + e.textContent.trim().slice(0, 40) + '"';
const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > LIMIT &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > LIMIT;
function overlaps(elements, others) {
  const found = [], box = e => e.getBoundingClientRect();
  elements.forEach((a, i) => (others || elements.slice(i + 1)).forEach(b => {
    if (meet(box(a), box(b))) found.push(name(a) + ' lies on ' + name(b)); }));
  return found;
}
function luminance(color) {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
      .map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}
function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + .05) / (low + .05);
}
function look(page) {
  const all = (selector, inside) => [...(inside || page).querySelectorAll(selector)];
  const root = page.documentElement, problems = [];
  if (root.scrollWidth > root.clientWidth)
    problems.push(`the page is ${root.scrollWidth} wide in ${root.clientWidth}`);
  problems.push(...overlaps(all('h1, h2, h3, figcaption')));
  const pictures = all('figure svg');
  problems.push(...overlaps(all('h1, h2, h3, figcaption'), pictures));
  for (const picture of pictures) {
    const texts = all('text', picture), box = picture.getBoundingClientRect();
    problems.push(...overlaps(texts));
    if (!all('image', picture).length) problems.push(...overlaps(texts, all('rect', picture)));
    for (const text of texts) {
      const own = text.getBoundingClientRect();
      if (own.left < box.left - LIMIT || own.right > box.right + LIMIT ||
          own.top < box.top - LIMIT || own.bottom > box.bottom + LIMIT)
        problems.push(name(text) + ' is cut off');
    }
  }
  const images = [...document.images];
  for (const image of images)
    if (!image.complete || !image.naturalWidth)
      problems.push('an image does not load: ' + image.src.slice(0, 60));
  const style = e => page.defaultView.getComputedStyle(e), back = style(page.body).backgroundColor;
  for (const e of all('p, td, th, h1, h2, figcaption, figcaption code'))
    if (contrast(style(e).color, back) < LEAST_CONTRAST) problems.push(name(e) + ' is pale');
  for (const e of all('figure svg:not(:has(image)) text'))
    if (contrast(style(e).fill, back) < LEAST_CONTRAST) problems.push(name(e) + ' is pale');
  for (const e of all('.legend path'))
    if (contrast(style(e).stroke, back) < 3) problems.push('a curve is pale');
  return {problems, back, pictures: pictures.length, images: images.length,
          titles: all('h1, h2, h3, figcaption').length,
          width: root.clientWidth};
}
onload = () => {
  const found = look(document.querySelector('iframe').contentDocument);
  document.body.replaceChildren(JSON.stringify(found));
};
"""


def look(page: Path, folder: Path, width: int, scheme: str) -> dict:
    """What the browser sees of a page in a frame of this many pixels, in a color scheme:
    ``problems`` and counts.

    The frame gives widths below the least width of a window.
    """
    assert PROGRAM is not None
    text = page.read_text(encoding="utf-8")
    # The frame cannot tell whether an image in SVG has loaded, so the page around it loads them.
    images = "".join(f'<img src="{source}">' for source in IMAGE.findall(text))
    style = f"border:0;width:{width}px;height:800px"
    around = folder / f"around-{page.stem}-{width}-{scheme}.html"
    around.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f'<body><iframe style="{style}" srcdoc="{html.escape(text)}"></iframe>'
        f"{images}<script>{LOOK}</script>",
        encoding="utf-8",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    options += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
    done = subprocess.run(
        [PROGRAM, *options, around.as_uri()], capture_output=True, timeout=SECONDS, check=True
    )
    found = re.search(r"<body>(\{.*\})</body>", done.stdout.decode(), re.DOTALL)
    assert found, f"the page was not looked at:\n{done.stdout.decode()[-2000:]}"
    return json.loads(html.unescape(found[1]))
