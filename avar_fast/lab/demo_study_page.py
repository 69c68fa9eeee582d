"""The page of the demo's study: what was run, what came out, tables, a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import load_recipe
from ..evaluate.provenance import processor, short_version
from ..tables import markdown, mean_and_deviation
from .demo_runs import (
    ABSENT,
    BASE,
    CONTRAST,
    CURED,
    GRPO,
    LONGER,
    MORE,
    NOISE,
    NUM_TEST,
    ORDER,
    PLAIN,
    READS,
    RIGHT,
    RIGHT_HINTS,
    RUNS,
    SIDE,
    STEPS,
    WRONG,
)
from .paired import MANY, PairedDifference, paired_difference
from .runs import CONFIGS

Seeds = dict[int, dict[str, Any]]
"""{seed: {"models": what the demo measured, "interventions": scores of the plain model}}"""
Endpoint = Callable[[dict[str, Any]], float]
SHOWN = (*ORDER[:-2], *(run.key for run in LONGER), *ORDER[-2:])
"""The order of the tables: that of the demo, the longer cold starts before GRPO."""
ENDPOINTS: dict[str, Endpoint] = {
    "later steps": lambda model: model[WRONG]["late"],
    "first step": lambda model: model[WRONG]["first"],
    "follows hint": lambda model: model[WRONG]["follows"],
    "whole walks": lambda model: model["whole_walks"],
    "no hint": lambda model: model[ABSENT]["late"],
    "right hint": lambda model: model[RIGHT_HINTS]["late"],
    "visual mass": lambda model: model[WRONG]["masses"]["visual"],
    "system mass": lambda model: model[WRONG]["masses"]["system"],
    "VAS log ratio": lambda model: model["vas"]["log_ratio"],
    "VAS share": lambda model: model["vas"]["share"],
}
"""{column: its value}; the first is the primary endpoint."""
PRIMARY = "later steps"
COMPARED = (
    (CURED.key, "slow"),
    (CURED.key, "enhance"),
    (CURED.key, "suppress"),
    (CURED.key, "placebo"),
    ("agto-long", "slow-long"),
    *((run.key, CURED.key) for run in GRPO),
    (GRPO[1].key, GRPO[0].key),
)
"""Pairs of arms whose difference tells something besides that to plain."""


def write_page(out: Path, results: Seeds, command: str) -> str:
    """Writes ``demo.md`` and its picture in ``img/``; returns the main table.

    Args:
        out: the folder.
        results: of two seeds or more.
        command: that made the results.
    """
    main = _arms_table(results)
    minutes = f"{len(results)} seeds of `{command}` at commit {short_version()}"
    page = [
        "# Does AGTO cure a model that copies a hint?",
        "",
        f"{minutes}, {processor()}. One seed is what `make demo` runs.",
        "",
        _setup(),
        "",
        "## What came out",
        "",
        f"Share of {PRIMARY} that are right with wrong hints, against `{RUNS[PLAIN.key].title}`,"
        f" paired by seed, with a 95 % t interval. {MANY}",
        "",
        *_findings(results),
        "",
        main,
        "",
        "Mean and standard deviation over seeds. `follows hint` is the share of later digits that"
        " are the hint's, where hint and image differ. `no hint` and `right hint` are the later"
        " steps of the same walks with no hint and with the right one. Masses are the attention of"
        " the queries that predict digits. VAS (eps 1e-6) is that of the user's tokens, as in the"
        " paper.",
        "",
        "![Later steps that are right with wrong hints, of every arm: a dot per"
        " seed](img/demo-study.png)",
        "",
        "Paired differences between arms, with a 95 % t interval:",
        "",
        _comparisons_table(results),
        "",
        "A system mass of zero where digits are predicted does not mean that the hint is not used:"
        " tokens of the user turn may have read it in the layer below (LOG.md has a test of that).",
        "",
        "## Without training",
        "",
        "The plain models, with wrong hints, while the attention of all queries is changed."
        " Differences are to the same models unchanged.",
        "",
        _interventions_table(results),
    ]
    (out / "img").mkdir(parents=True, exist_ok=True)
    (out / "demo.md").write_text("\n".join(page) + "\n")
    _plot(out / "img" / "demo-study.png", results)
    return main


def _setup() -> str:
    """What is trained and tested, in Markdown."""
    sft = load_recipe(CONFIGS / PLAIN.recipe, [])
    agto = load_recipe(CONFIGS / CURED.recipe, []).agto
    grpo = load_recipe(CONFIGS / GRPO[1].recipe, list(GRPO[1].settings))
    base = load_recipe(CONFIGS / BASE.recipe, list(BASE.settings))
    more = load_recipe(CONFIGS / MORE.recipe, list(MORE.settings))
    weights = ", ".join(f"{name} {weight:g}" for name, weight in grpo.grpo.rewards.items())
    return "\n".join(
        [
            f"- World: walks of {STEPS} steps on {SIDE} x {SIDE} handwritten digits. Each digit"
            " names the next cell, so every step needs a look at the image. In the cold start's"
            " rows the system turn ends with a hint, the finished walk, which is right with"
            f" probability {RIGHT:g}; else it is a walk of another board. Images have contrast"
            f" {CONTRAST:g} and noise {NOISE:g}, the base model's 1 and 0.",
            "- Model: Qwen2.5-VL's architecture with 2 layers of 1 head. Each seed has its own"
            f" weights, data and base model: {base.train.steps} steps, then {more.train.steps} more"
            f" if it is not right at {READS:.0%} of the later steps of clean walks, and then other"
            " weights. Half of its walks have hints of other boards.",
            f"- Cold starts: {sft.train.steps} steps of {sft.train.batch_size} rows, learning rate"
            f" {sft.optim.lr:g}, the whole model. AGTO: weights {agto.alpha:g} and {agto.beta:g},"
            f" {agto.queries} queries. All arms of a seed share base model, rows and order.",
            f"- GRPO from the AGTO model, on rows of the same kind: {grpo.train.steps} steps of"
            f" {grpo.train.batch_size} prompts with {grpo.grpo.group_size} completions, learning"
            f" rate {grpo.optim.lr:g}. Rewards: {weights}; the arm without VARS has no visual"
            " reward.",
            f"- Tests: {NUM_TEST} walks on held-out handwriting, the same with wrong hints, with"
            " none and with right ones. The true steps before each step are given, but for `whole"
            " walks`, which are written greedily.",
            f"- Primary endpoint: the share of {PRIMARY} that are right, with wrong hints.",
            "- Boards, contrast and noise were chosen after a look at pilots, of other seeds but"
            " for those on larger boards (LOG.md). On 2 x 2 boards, the later steps that were"
            " right, of plain, AGTO and ceiling: 0.63, 0.91 and not run at contrast 0.5 and noise"
            " 0.3; 0.45, 0.83, 0.89 at 0.45 and 0.35; 0.15, 0.69, 0.85 as here. On 3 x 3 boards"
            " most base models do not come to read the cell in the middle.",
        ]
    )


def _findings(results: Seeds) -> list[str]:
    return [
        f"- {RUNS[key].title}: {(found := _difference(results, key, PLAIN.key)).verdict},"
        f" {found:+.3f}."
        for key in SHOWN
        if key != PLAIN.key
    ]


def _arms_table(results: Seeds) -> str:
    lines = [["", *ENDPOINTS]]
    for key in SHOWN:
        cells = [
            mean_and_deviation(values_of(results, key, endpoint), ".2f" if "VAS" in name else ".3f")
            for name, endpoint in ENDPOINTS.items()
        ]
        lines.append([RUNS[key].title, *cells])
    return markdown(lines)


def _comparisons_table(results: Seeds) -> str:
    columns = (PRIMARY, "follows hint", "whole walks", "no hint")
    lines = [["arm", "less", *columns]]
    for key, other in COMPARED:
        found = [f"{_difference(results, key, other, column):+.3f}" for column in columns]
        lines.append([RUNS[key].title, RUNS[other].title, *found])
    return markdown(lines)


def _interventions_table(results: Seeds) -> str:
    runs = [run["interventions"] for run in results.values()]
    unchanged = next(iter(runs[0]))
    reference = [run[unchanged]["late"] for run in runs]
    lines = [["", PRIMARY, "difference", "first step", "follows hint"]]
    for title in runs[0]:
        late = [run[title]["late"] for run in runs]
        compared = "" if title == unchanged else f"{paired_difference(late, reference):+.3f}"
        others = [
            mean_and_deviation([run[title][name] for run in runs]) for name in ("first", "follows")
        ]
        lines.append([title, mean_and_deviation(late), compared, *others])
    return markdown(lines)


def values_of(results: Seeds, key: str, endpoint: Endpoint) -> list[float]:
    """An endpoint of an arm, in the order of the seeds."""
    return [endpoint(results[seed]["models"][key]) for seed in sorted(results)]


def _difference(results: Seeds, key: str, other: str, column: str = PRIMARY) -> PairedDifference:
    return paired_difference(
        values_of(results, key, ENDPOINTS[column]), values_of(results, other, ENDPOINTS[column])
    )


def _plot(path: Path, results: Seeds) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axis = figure.subplots()
    for place, key in enumerate(SHOWN):
        late = values_of(results, key, ENDPOINTS[PRIMARY])
        axis.plot(late, [place] * len(late), "o", color="tab:blue", alpha=0.5)
    axis.set_yticks(range(len(SHOWN)), [RUNS[key].title for key in SHOWN])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"{PRIMARY} that are right, with wrong hints")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
