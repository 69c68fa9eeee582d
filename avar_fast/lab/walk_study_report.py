"""The page of the walk study: what was run, what came out, tables, pictures."""

from pathlib import Path

from ..evaluate.provenance import processor, short_version
from .paired import MANY
from .walk_study_plots import plot_arms, plot_doses, plot_scores, plot_steps
from .walk_study_tables import (
    PLAIN,
    RELIANCE,
    VAS,
    Arms,
    arms_table,
    bases_table,
    comparisons_table,
    correlated_runs,
    correlations_table,
    doses_table,
    findings,
    means_table,
)


def write_page(
    out: Path, titles: dict[str, str], results: dict[str, Arms], setup: str, command: str
) -> str:
    """Writes ``walk-study.md`` and its pictures in ``img/``; returns the main table.

    Args:
        out: the folder.
        titles: of the arms, in order.
        results: {tower: its arms}; "plenty" may be missing.
        setup: Markdown that says what was trained and tested.
        command: that made the results.
    """
    pictures = out / "img"
    pictures.mkdir(parents=True, exist_ok=True)
    scarce, plenty = results["scarce"], results.get("plenty")
    main = arms_table(titles, scarce)
    page = [
        "# When does AGTO cure a lazy model?",
        "",
        *(_size(arms, tower) for tower, arms in results.items()),
        f"`{command}` at commit {short_version()}, {processor()}.",
        "",
        setup,
        "",
        "## What came out",
        "",
        "Late accuracy against `plain`, with scarce heads, paired, with 95 % t intervals. The first"
        " interval is over runs. Runs of one base model are alike, so it says little about other"
        " base models. The second is over the base models' means, and does; of few of them it"
        f" shows only differences that are nearly the same in each. {MANY}",
        "",
        *findings(titles, scarce),
        "",
        *(["With plenty of heads:", "", *findings(titles, plenty), ""] if plenty else []),
        "## Arms, scarce heads",
        "",
        "Mean and standard deviation over the runs. Differences are to `plain`, paired by base and"
        " seed, with a 95 % t interval. `gap` is the share of the distance from plain to ceiling"
        " that an arm closes. LM loss is that of the last steps of training.",
        "",
        main,
        "",
        "![Difference in late accuracy to plain, of every arm and both towers, with"
        " intervals](img/walk-study-arms.png)",
        "",
        "![Accuracy by step of the walk: ceiling, plain and the arms](img/walk-study-steps.png)",
        "",
        "The arms against their controls, paired in the same way:",
        "",
        comparisons_table(titles, scarce),
        "",
        "Difference in late accuracy to `plain` by base model, mean over its seeds, and the t"
        " interval of these means:",
        "",
        bases_table(titles, scarce),
        "",
        *_control(titles, plenty),
        "## What the models lose without the image",
        "",
        "The attention of all queries to visual keys is cut off (bias -1e4). `blind` is the late"
        " accuracy that remains, `reliance` what is lost. On rows with the prior a model can be"
        " right without looking.",
        "",
        means_table(titles, scarce, RELIANCE),
        "",
        "## VAS",
        "",
        "Visual attention score (eps 1e-6) of the tokens that see the image: the user's, as in the"
        " paper, and the response's.",
        "",
        means_table(titles, scarce, VAS),
        "",
        "Pearson correlation of score and late accuracy over the finished models of the scarce"
        f" tower ({sum(map(len, correlated_runs(scarce)))} runs): over all, between arms (their"
        " means), and within arms (each run less the mean of its arm). Within an arm the runs still"
        " differ in their base models.",
        "",
        correlations_table(scarce),
        "",
        "![Late accuracy against the log ratio at the user's and the response's tokens and against"
        " visual mass, a dot per run](img/walk-study-scores.png)",
        "",
        "## Without training: doses",
        "",
        "The attention of the plain models, scarce tower, is changed at inference. Differences are"
        " to the same models unchanged, paired, with a 95 % t interval.",
        "",
        doses_table(scarce[PLAIN]),
        "",
        "![Late accuracy over scale and bias of visual keys](img/walk-study-doses.png)",
    ]
    (out / "walk-study.md").write_text("\n".join(page) + "\n")
    plot_arms(pictures / "walk-study-arms.png", titles, results)
    plot_steps(pictures / "walk-study-steps.png", titles, scarce)
    plot_scores(pictures / "walk-study-scores.png", titles, scarce)
    plot_doses(pictures / "walk-study-doses.png", scarce[PLAIN])
    return main


def _control(titles: dict[str, str], arms: Arms | None) -> list[str]:
    title = "## Negative control: plenty of heads"
    if arms is None:
        return [title, "", "No run of it is finished: nothing here says what happens there.", ""]
    tables = (arms_table(titles, arms), *(means_table(titles, arms, x) for x in (RELIANCE, VAS)))
    return [
        title,
        "",
        "The same tables as above and below, of the tower with plenty of heads.",
        "",
        *(line for table in tables for line in (table, "")),
    ]


def _size(arms: Arms, tower: str) -> str:
    """How many base models and runs a tower has."""
    bases = {base for base, _ in arms[PLAIN]}
    counts = sorted({len(runs) for runs in arms.values()})
    runs = " or ".join(map(str, counts))
    return f"With {tower} heads: {len(bases)} base models, {runs} runs of each arm."
