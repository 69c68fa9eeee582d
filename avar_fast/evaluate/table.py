"""Tables of results as text: scores next to the paper's, and details of each score."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

from ..tables import markdown
from ..vas import FORMS
from .benchmarks import PARTS
from .result import BenchmarkSummary, Result
from .settings import intervention_text

AVERAGE = "average"
NONE = "-"


def paper() -> dict[str, Any]:
    """Reads the paper's table (paper.yaml): source, columns, and rows with scores in percent."""
    return yaml.safe_load(
        files("avar_fast.evaluate").joinpath("paper.yaml").read_text(encoding="utf-8")
    )


def columns_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Converts {task: score from 0 to 1} into {benchmark: percent}.

    A benchmark of several tasks gets their mean if all of them are present; otherwise its tasks are
    left out. If the paper's seven benchmarks are present, their average is added.
    """
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
    """Table of scores: a header, one line per result, and the paper's lines.

    Args:
        results: (name, {task: score}) of each result.
    """
    measured = [(name, columns_of(scores)) for name, scores in results]
    published = paper()
    known = [*published["columns"], AVERAGE]
    present = dict.fromkeys(c for _, columns in measured for c in columns)
    order = [
        *(c for c in known if set(known) & set(present)),
        *(c for c in present if c not in known),
    ]
    lines = [["model", *order]]
    lines += [[name, *(_percent(columns.get(c)) for c in order)] for name, columns in measured]
    if any(c in columns for _, columns in measured for c in published["columns"]):
        lines += [
            [f"paper: {row['model']}", *(_percent(row.get(c)) for c in order)]
            for row in published["rows"]
        ]
    return lines


def detail_table(summaries: Mapping[str, BenchmarkSummary]) -> list[list[str]]:
    """Table of details: one line per benchmark with counts, shares, tokens and VAS."""
    lines = [
        ["benchmark", "score", "questions", "unparsable", "truncated", "not asked", "tokens"]
        + [f"VAS {form.replace('_', ' ')}" for form in FORMS]
    ]
    judged = any(s.judge for s in summaries.values())
    if judged:
        lines[0].append("judge")
    for name, s in summaries.items():
        count = f"{s.num}" if s.num_published in (None, s.num) else f"{s.num} of {s.num_published}"
        lines.append(
            [
                name,
                _percent(100 * s.score),
                count,
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
    """Sentences that explain the tables: rules, missing questions, and the judge."""
    lines = [
        f"{name}: {s.rule}. {f'Official: {s.official}.' if s.num_published else ''}".rstrip()
        for name, s in summaries.items()
    ]
    lines += [
        f"{name}: {', '.join(f'{part} {_percent(100 * value)}' for part, value in more.items())}."
        for name, s in summaries.items()
        if (more := {part: value for part, value in s.scores.items() if "=" not in part})
    ]
    if part := part_note(result_name, summaries):
        lines.append(part)
    unread = [name for name, s in summaries.items() if s.num_unread]
    if unread:
        lines.append(f"Questions of {', '.join(unread)} could not be asked and count as wrong.")
    lines += [judge_note(name, s.judge) for name, s in summaries.items() if s.judge]
    if set(summaries) & {part for parts in PARTS.values() for part in parts}:
        lines.append(
            f"The paper's lines are by its own evaluation: {paper()['source']}. Expect some points"
            " of difference from prompts and rules alone; compare models under one evaluation."
        )
    return lines


def part_note(result_name: str, summaries: Mapping[str, BenchmarkSummary]) -> str:
    """Names the benchmarks of which a result has not all questions; empty if there are none."""
    partial = [name for name, s in summaries.items() if s.num_published not in (None, s.num)]
    return f"{result_name} has only a part of {', '.join(partial)}." if partial else ""


def side_by_side(results: Sequence[Result]) -> str:
    """The table of several results, and below it why scores in it may not compare."""
    lines = []
    for name in dict.fromkeys(name for result in results for name in result.benchmarks):
        having = [result for result in results if name in result.benchmarks]
        if len({result.benchmarks[name].digest for result in having}) > 1:
            counts = ", ".join(f"{r.path} has {r.benchmarks[name].num}" for r in having)
            lines.append(f"{name}: the questions differ ({counts}), so the scores do not compare.")
    for result in results:
        lines.append(part_note(str(result.path), result.benchmarks))
        changed = intervention_text(result.head.get("settings", {}))
        lines.append(changed and f"{result.path}: {changed}")
    table = markdown(score_table([(result.path, result.scores) for result in results]))
    return "\n\n".join(filter(None, (table, "\n".join(filter(None, lines)))))


def judge_note(name: str, judge: Mapping[str, Any]) -> str:
    """Names the judge and says how many answers it judged and how many failed."""
    note = (
        f"{name}: the {judge_name(judge)} was asked about the {judge['asked']} answers that the"
        f" rule did not score as right, and found {judge['right']} of them right."
    )
    if judge["failed"]:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in judge["reasons"].items())
        note += f" It gave no verdict on {judge['failed']}, which keep the rule's: {reasons}."
    return note


def judge_name(judge: Mapping[str, Any]) -> str:
    return f"judge {judge['model']} at {judge['host']}"


def _judge_cell(judge: Mapping[str, Any] | None) -> str:
    if judge is None:
        return NONE
    counts = f"{judge['right']} right of {judge['asked']}"
    return f"{judge_name(judge)}: {counts}, {judge['failed']} failed"


def report(result: Result) -> str:
    """The text that is printed at the end of a run."""
    name = result.head["model"]["path"]
    parts = [
        markdown(score_table([(name, result.scores)])),
        markdown(detail_table(result.benchmarks)),
        "\n".join(notes(name, result.benchmarks)),
        intervention_text(result.head["settings"]),
    ]
    return "\n\n".join(filter(None, parts))


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"
