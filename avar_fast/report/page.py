"""The page of a study: a story, a table, training curves, VAS per layer and head."""

import html
from collections.abc import Sequence
from pathlib import Path

from . import figures
from .document import html_table, write_page
from .entry import ReportEntry

CURVES = (
    ("lm_loss", "language-model loss"),
    ("vas_log_ratio", "VAS, log ratio (responses of training batches)"),
    ("vas_share", "VAS, share (responses of training batches)"),
    ("accuracy", "accuracy of sampled completions"),
    ("reward_visual", "visual reward (VARS)"),
)


def write_report(
    path: Path,
    title: str,
    intro: str,
    story: str,
    table: Sequence[Sequence[str]],
    entries: Sequence[ReportEntry],
) -> None:
    """Writes the page.

    Args:
        path: of the HTML file.
        title: plain text.
        intro: plain text below it.
        story: HTML before the table.
        table: header and lines.
        entries: the models of the figures; their logs have the score of the responses' tokens.
    """
    logs = {e.name: e.log for e in entries if e.log}
    tables = {e.name: (e.vas_layers, e.vas_table["log_ratio"]) for e in entries}
    shares = {e.name: (e.vas_layers, e.vas_table["share"]) for e in entries}
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p>",
        story,
        html_table(table),
        (
            '<p class="note">VAS: mean over layers, heads and the user\'s text tokens of visual'
            " over system attention mass. The plain ratio explodes where system mass nears zero"
            " (eps 1e-6 bounds it), so read the log ratio and the share, visual / (visual +"
            " system), beside it. The curves of training are those of the responses' tokens: scores"
            " of different queries do not compare.</p>"
        ),
        f"<h2>Training</h2>{figures.curves(logs, CURVES)}" if logs else "",
        (
            f"<h2>VAS per layer and head</h2>{figures.vas_tables(tables, 'log ratio')}"
            f"{figures.vas_tables(shares, 'share')}"
        ),
    ]
    write_page(path, title, parts)
