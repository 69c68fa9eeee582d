"""The page of a study: table, training curves, VAS per layer and head, attention on images."""

import html
from collections.abc import Sequence
from pathlib import Path

from ..tables import markdown
from . import figures
from .document import html_table, write_page
from .entry import ReportEntry

CURVES = (
    ("lm_loss", "language-model loss"),
    ("vas_log_ratio", "VAS, log ratio (training batches)"),
    ("vas_share", "VAS, share (training batches)"),
    ("accuracy", "accuracy of sampled completions"),
    ("reward_visual", "visual reward (VARS)"),
)


def table_rows(entries: list[ReportEntry]) -> list[list[str]]:
    """Header and one line per entry, as text."""
    styles = sorted({style for e in entries for style in e.accuracy_by_style})
    header = [
        "model",
        "accuracy",
        *styles,
        "VAS ratio",
        "VAS log ratio",
        "VAS share",
        "train s",
        "eval s",
    ]
    lines = [header]
    for entry in entries:
        lines.append(
            [
                entry.name,
                f"{entry.accuracy:.3f}",
                *(f"{entry.accuracy_by_style.get(style, float('nan')):.3f}" for style in styles),
                f"{entry.vas['ratio']:.4g}",
                f"{entry.vas['log_ratio']:.2f}",
                f"{entry.vas['share']:.3f}",
                f"{entry.train_seconds:.0f}",
                f"{entry.eval_seconds:.0f}",
            ]
        )
    return lines


def text_table(entries: list[ReportEntry]) -> str:
    """The table for a terminal or a Markdown file."""
    return markdown(table_rows(entries))


def write_report(
    path: Path,
    title: str,
    intro: str,
    entries: list[ReportEntry],
    table: Sequence[Sequence[str]] | None = None,
    story: str = "",
) -> None:
    """Writes the page.

    Args:
        path, title: of the page.
        intro: plain text.
        entries: the models.
        table: header and lines of another table than that of ``table_rows``.
        story: HTML before the table.
    """
    logs = {e.name: e.log for e in entries if e.log}
    tables = {e.name: (e.vas_layers, e.vas_table["log_ratio"]) for e in entries}
    shares = {e.name: (e.vas_layers, e.vas_table["share"]) for e in entries}
    maps = {e.name: e.maps for e in entries if e.maps}
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p>",
        story,
        html_table(table or table_rows(entries)),
        (
            '<p class="note">VAS: mean over layers, heads and the user\'s text tokens of visual'
            " over system attention mass. The plain ratio explodes where system mass nears zero"
            " (eps 1e-6 bounds it), so read the log ratio and the share, visual / (visual +"
            " system), beside it.</p>"
        ),
        f"<h2>Training</h2>{figures.curves(logs, CURVES)}" if logs else "",
        (
            f"<h2>VAS per layer and head</h2>{figures.vas_tables(tables, 'log ratio')}"
            f"{figures.vas_tables(shares, 'share')}"
        ),
        f"<h2>Where the response looks</h2>{figures.attention_grid(maps)}" if maps else "",
    ]
    write_page(path, title, parts)
