"""Writes the data card: the source of the rows, the models that wrote them, and what was
rejected."""

from pathlib import Path
from typing import Any

from ..journal import write_whole
from .prompts import Prompt
from .recipe import SynthesisRecipe
from .results import ROWS
from .step_config import STEPS


def write_card(
    recipe: SynthesisRecipe, prompts: dict[str, Prompt], report: dict[str, Any], folder: Path
) -> None:
    """Writes README.md into the folder of the rows."""
    rows, gates, data = report["rows"], dict(report["gates"]), recipe.data
    lines = [
        "# Visually anchored reasoning",
        "",
        f"{rows['accepted']} rows in `{ROWS}`: one question about images each, with reasoning that"
        " refers to the image and an answer that agrees with the reference of the source.",
        "",
        "Made by describe, reason and rewrite: a vision model describes the image, a model that"
        " sees only the description reasons, a model turns appeals to the description into appeals"
        " to the image. The texts are a model's; beyond the gates below nobody has checked them.",
        "",
        "## Source",
        "",
        f"- rows: `{data.path}`, split {data.split}, {rows['read']} rows"
        + (" (the first)" if data.limit else ""),
        f"- license of rows and images: {data.license}",
        "",
        "## Writers",
        "",
        "| step | model | prompt | sampling | license of the output | tokens in / out | USD |",
        "|---|---|---|---|---|---:|---:|",
    ]
    for name in STEPS:
        step, counts = recipe.step(name), report["steps"][name]
        settings = ("temperature", "top_p", "max_tokens", "seed")
        sampling = ", ".join(
            f"{key} {value}" for key in settings if (value := getattr(step, key)) is not None
        )
        lines.append(
            f"| {name} | {step.model} | {prompts[name].version}"
            f" (`{prompts[name].digest[:12]}`) | {sampling} | {step.license} |"
            f" {counts['input_tokens']} / {counts['output_tokens']} | {counts['usd']} |"
        )
    lines += [
        "",
        f"{recipe.samples} samples per row; the best that passed every gate is kept.",
        "",
        "## Counts",
        "",
        "| rows | |",
        "|---|---:|",
        *(f"| {name} | {count} |" for name, count in rows.items()),
        "",
        "| rejected by | rows |",
        "|---|---:|",
        *(f"| {name} | {count} |" for name, count in report["rejected_by"].items()),
        "",
        f"{gates.pop('candidates')} candidates were checked, their answers by the rule"
        f" `{recipe.gates.checker}`. The settings of all gates are in `recipe.yaml`. A candidate"
        " may fail several gates:",
        "",
        "| gate | candidates rejected |",
        "|---|---:|",
        *(f"| {name} | {count} |" for name, count in gates.items()),
        "",
    ]
    write_whole(folder / "README.md", ["\n".join(lines)])
