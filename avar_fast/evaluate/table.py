"""Tables of results as text: scores beside the paper's, and what is behind each score."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

from ..tables import markdown
from ..vas import FORMS
from .benchmarks import PARTS
from .result import BenchmarkSummary, Result

AVERAGE = "average"
NONE = "-"


def paper() -> dict[str, Any]:
    """The paper's rows (paper.yaml): source, columns, and rows with scores in per cent."""
    return yaml.safe_load(
        files("avar_fast.evaluate").joinpath("paper.yaml").read_text(encoding="utf-8")
    )


def columns_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of tasks -> per cent of benchmarks, a benchmark of several tasks as their mean where
    all are there, and the average of the paper's seven where those are."""
    columns = {
        name: 100 * sum(scores[part] for part in parts) / len(parts)
        for name, parts in PARTS.items()
        if all(part in scores for part in parts)
    }
    columns |= {
        name: 100 * score
        for name, score in scores.items()
        if not any(name in parts for parts in PARTS.values())
    }
    seven = paper()["columns"]
    if all(name in columns for name in seven):
        columns[AVERAGE] = sum(columns[name] for name in seven) / len(seven)
    return columns


def score_table(results: Sequence[tuple[str, Mapping[str, float]]]) -> list[list[str]]:
    """Header, one line per (name, scores of tasks), and the paper's lines."""
    own = [(name, columns_of(scores)) for name, scores in results]
    published = paper()
    known = [*published["columns"], AVERAGE]
    mine = dict.fromkeys(c for _, columns in own for c in columns)
    order = [*(c for c in known if set(known) & set(mine)), *(c for c in mine if c not in known)]
    lines = [["model", *order]]
    lines += [[name, *(_percent(columns.get(c)) for c in order)] for name, columns in own]
    if any(c in columns for _, columns in own for c in published["columns"]):
        lines += [
            [f"paper: {row['model']}", *(_percent(row.get(c)) for c in order)]
            for row in published["rows"]
        ]
    return lines


def detail_table(summaries: Mapping[str, BenchmarkSummary]) -> list[list[str]]:
    """What is behind the scores of a run."""
    lines = [
        ["benchmark", "score", "questions", "unparsable", "truncated", "not asked", "tokens"]
        + [f"VAS {form.replace('_', ' ')}" for form in FORMS]
    ]
    judged = any(s.judge for s in summaries.values())
    if judged:
        lines[0].append("judge")
    for name, s in summaries.items():
        whole = f"{s.num}" if s.num_published in (None, s.num) else f"{s.num} of {s.num_published}"
        lines.append(
            [
                name,
                _percent(100 * s.score),
                whole,
                f"{100 * s.unparsable:.1f} %",
                f"{100 * s.truncated:.1f} %",
                str(s.num_unread),
                f"{s.mean_tokens:.0f}",
                *(f"{s.vas[form]:.4g}" if form in s.vas else NONE for form in FORMS),
                *([_judge_cell(s.judge)] if judged else []),
            ]
        )
    return lines


def notes(result_name: str, summaries: Mapping[str, BenchmarkSummary]) -> list[str]:
    """What a reader of the tables must know."""
    said = [
        f"{name}: {s.rule}. {f'Official: {s.official}.' if s.num_published else ''}".rstrip()
        for name, s in summaries.items()
    ]
    said += [
        f"{name}: {', '.join(f'{part} {_percent(100 * value)}' for part, value in more.items())}."
        for name, s in summaries.items()
        if (more := {part: value for part, value in s.scores.items() if "=" not in part})
    ]
    part = [name for name, s in summaries.items() if s.num_published not in (None, s.num)]
    if part:
        said.append(f"{result_name} has only a part of {', '.join(part)}.")
    lost = [name for name, s in summaries.items() if s.num_unread]
    if lost:
        said.append(f"Questions of {', '.join(lost)} could not be asked and count as wrong.")
    said += [judge_note(name, s.judge) for name, s in summaries.items() if s.judge]
    if set(summaries) & {part for parts in PARTS.values() for part in parts}:
        said.append(
            f"The paper's lines are by its own evaluation: {paper()['source']}. Expect some points"
            " of difference from prompts and rules alone; compare models under one evaluation."
        )
    return said


def judge_note(name: str, judge: Mapping[str, Any]) -> str:
    """Who judged, how much of it, and what failed."""
    said = (
        f"{name}: the {judge_name(judge)} was asked for the {judge['asked']} answers that the rule"
        f" finds not right, and found {judge['right']} of them right."
    )
    if judge["failed"]:
        reasons = "; ".join(f"{why} ({count})" for why, count in judge["reasons"].items())
        said += f" It came to no verdict on {judge['failed']}, which stay as they were: {reasons}."
    return said


def judge_name(judge: Mapping[str, Any]) -> str:
    return f"judge {judge['model']} at {judge['host']}"


def _judge_cell(judge: Mapping[str, Any] | None) -> str:
    if judge is None:
        return NONE
    counts = f"{judge['right']} right of {judge['asked']}"
    return f"{judge_name(judge)}: {counts}, {judge['failed']} failed"


def report(result: Result) -> str:
    """Everything that is printed at the end of a run."""
    name = result.head["model"]["path"]
    parts = [
        markdown(score_table([(name, result.scores)])),
        markdown(detail_table(result.benchmarks)),
        "\n".join(notes(name, result.benchmarks)),
    ]
    return "\n\n".join(parts)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"
