"""HTML that every page shares: the document, its looks, tables.

A page is one file: it loads nothing and runs no script. It follows the reader's light or dark
scheme. Figures draw with ``currentColor`` and the variables below. A table that is wider than the
page scrolls by itself, and a shade marks the side where it goes on.
"""

import html
from collections.abc import Sequence
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1f2328; --muted: #59636e;
--rule: #d1d9e0; --card: #f6f8fa; --shade: #0003;
--c0: #0069b4; --c1: #c84a00; --c2: #00795c; --c3: #a13d85; --c4: #8a6a00; --c5: #57606a; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1318; --text: #e6edf3; --muted: #9aa4af;
--rule: #39424e; --card: #181e26; --shade: #fff4;
--c0: #58b4ff; --c1: #ff8f50; --c2: #3fd0a4; --c3: #ec93cf; --c4: #e3bd4d; --c5: #b1bac4; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto;
padding: 1em 16px 4em; color: var(--text); background: var(--back); overflow-wrap: anywhere; }
h1 { font-size: 1.6em; line-height: 1.25; margin: .6em 0; }
h2 { font-size: 1.25em; margin: 2em 0 .5em; padding-top: .5em; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05em; margin: 1.4em 0 .4em; }
.note { color: var(--muted); font-size: 13px; max-width: 50em; }
code, pre { font: 12.5px/1.45 ui-monospace, monospace; }
pre { white-space: pre-wrap; background: var(--card); border: 1px solid var(--rule);
border-radius: 6px; padding: .6em .8em; margin: .4em 0; max-height: 24em; overflow: auto; }
details { margin: .35em 0; } summary { cursor: pointer; }
.scroll { overflow-x: auto; margin: 1em 0; max-width: 100%;
background: linear-gradient(to right, var(--back) 40%, transparent) 0 0 / 40px 100% no-repeat local,
linear-gradient(to left, var(--back) 40%, transparent) 100% 0 / 40px 100% no-repeat local,
linear-gradient(to right, var(--shade), transparent) 0 0 / 14px 100% no-repeat scroll,
linear-gradient(to left, var(--shade), transparent) 100% 0 / 14px 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 14px; overflow-wrap: normal;
font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid var(--rule); padding: .3em .8em; text-align: left;
vertical-align: top; max-width: 28em; }
th { vertical-align: bottom; } td.number, th.number { text-align: right; white-space: nowrap; }
td:first-child, th:first-child { min-width: 8em; padding-left: 0; }
.panels { display: grid; gap: 18px 22px; margin: .8em 0;
grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.panels > figure { display: grid; grid-row: span 2; grid-template-rows: subgrid; row-gap: 4px; }
figure { margin: 0; min-width: 0; } figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 13.5px; line-height: 1.35; }
figcaption code { color: var(--muted); font-size: 11.5px; } figcaption .note { display: block; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 13.5px; margin: .4em 0; }
.legend svg { width: 28px; height: 10px; margin-right: 6px; }
.scale { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 13.5px; margin: 1.2em 0 .6em; }
.scale span { white-space: nowrap; } .scale i { display: inline-block; width: 150px; height: 10px;
border-radius: 3px; margin: 0 6px; }
.cards { display: grid; gap: 12px; margin: .8em 0;
grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
padding: .7em .9em; min-width: 0; } .card pre { background: var(--back); }
.card h3 { margin: 0 0 .2em; font-size: 14.5px; } .card .note { margin: 0; }
"""


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """One HTML file; ``title`` is plain text, the parts are HTML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n",
        encoding="utf-8",
    )


def require_page(out: Path) -> None:
    """Raises ValueError unless ``--out`` can be a page.

    A folder cannot be one. A file of another kind, such as a log or a result, would be lost.
    """
    if out.is_dir():
        raise ValueError(
            f"--out must be an HTML file; {out} is a folder. Use --out {out / 'report.html'}"
        )
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(
            f"--out must end in .html; got {out}. Use --out {out.with_suffix('.html')}"
        )
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise ValueError(f"--out must be in a folder; got {out}, and {above} is a file.")


def html_table(lines: Sequence[Sequence[str]]) -> str:
    """A table of plain text, in a box that scrolls by itself. The first line is the header; columns
    of numbers are aligned to the right."""
    header, *body = lines
    numeric = [
        i > 0 and any(map(_is_number, cells)) and all(_is_number(c) or c == "-" for c in cells)
        for i, cells in enumerate(zip(*body, strict=True))
    ] or [False] * len(header)

    def row(cells: Sequence[str], tag: str) -> str:
        pairs = zip(cells, numeric, strict=True)
        return "".join(
            f'<{tag} class="number">{html.escape(cell)}</{tag}>'
            if right
            else f"<{tag}>{html.escape(cell)}</{tag}>"
            for cell, right in pairs
        )

    rows = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in body)
    return f'<div class="scroll"><table><tr>{row(header, "th")}</tr>{rows}</table></div>'


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, with a unit, a deviation or a second number behind it or not."""
    try:
        float(cell.partition(" ")[0].rstrip("%"))
    except ValueError:
        return False
    return True
