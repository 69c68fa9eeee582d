"""The page of the VARS study: what was run, what came out, tables and a picture."""

from pathlib import Path

from ..evaluate.provenance import processor, short_version
from .paired import MANY
from .style_curves import Seeds
from .vars_arms import LAST
from .vars_study_tables import arms_table, findings, plot_curves, styles_table


def write_page(
    out: Path, titles: dict[str, str], results: dict[str, Seeds], setup: str, command: str
) -> str:
    """Writes ``vars-study.md`` and its picture in ``img/``; returns the main table.

    Args:
        out: the folder.
        titles: of the arms, in order.
        results: {arm: its finished runs}, one or more of each.
        setup: Markdown that says what was trained and measured.
        command: that made the results.
    """
    pictures = out / "img"
    pictures.mkdir(parents=True, exist_ok=True)
    counts = sorted({len(runs) for runs in results.values()})
    main = arms_table(titles, results)
    page = [
        "# Does VARS help where right answers differ in how they look?",
        "",
        f"Runs of each arm: {' or '.join(map(str, counts))}, each from a base model and a cold"
        f" start of its seed. `{command}` at commit {short_version()}, {processor()}.",
        "",
        setup,
        "",
        "## What came out",
        "",
        "Area under the curve of sampled accuracy, against the same without VARS, paired by seed,"
        f" with a 95 % t interval. {MANY}",
        "",
        *findings(titles, results),
        "",
        "## Arms",
        "",
        "Mean and standard deviation over the runs. Differences are to the same without VARS,"
        " paired by seed, with a 95 % t interval; a single pair has none.",
        "",
        main,
        "",
        "![Sampled accuracy and share of completions that look back, over the steps of GRPO: thin"
        " lines are seeds, thick lines their means](img/vars-study-curves.png)",
        "",
        "## The two styles",
        "",
        "Accuracy of the completions of each style, and VARS of the right ones among them before"
        f" its weight, in the first and the last {LAST} steps; means over the runs that have such"
        " completions. Wrong transcripts differ from the board; `followed` is the share of them on"
        " which the walk goes on all the same. Completions in neither style are left out.",
        "",
        styles_table(titles, results),
    ]
    (out / "vars-study.md").write_text("\n".join(page) + "\n")
    plot_curves(pictures / "vars-study-curves.png", titles, results)
    return main
