"""Writes the results of finished steps: training rows, rejected rows and a report."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import Row, load_rows
from ..data.schemas import IMAGE_MARK, with_marks_escaped
from ..journal import write_whole
from .answer_check import CachedAnswerChecker
from .duplicates import near_duplicates
from .gates import STEP_GATES, TEXT_GATES, Candidate, best, gate_candidate
from .journal import StepJournal
from .ledger import Usage
from .recipe import RowsConfig, SynthesisRecipe
from .step_config import STEPS, sample_of
from .tasks import ReadRows, SynthesisTask, read_images

ROWS, REJECTED, REPORT, IMAGES = "rows.jsonl", "rejected.jsonl", "report.json", "images"


@dataclass(frozen=True)
class _Verdict:
    """The candidates of a row."""

    task: SynthesisTask
    candidates: list[Candidate]
    """Candidates of the samples that are finished."""
    decided: bool
    """Whether all samples are finished, or one of those that are passes the gates."""

    @property
    def best(self) -> Candidate:
        return best(self.candidates)


def write_results(
    recipe: SynthesisRecipe,
    read: ReadRows,
    journal: StepJournal,
    folder: Path,
    check: CachedAnswerChecker,
) -> dict[str, Any]:
    """Applies the gates of the recipe to every row and writes rows.jsonl, rejected.jsonl, images
    and report.json. Returns the report.

    No request is sent, so a changed gate can be applied to finished steps.
    """
    verdicts = [_verdict(recipe, task, journal, check) for task in read.tasks]
    decided = [v for v in verdicts if v.decided]
    good = [v for v in decided if not v.best.failures]
    twins = _twins(recipe, good)
    accepted = [v for v in good if v.task.index not in twins]
    rejected = [_rejected_problem(*item) for item in _unusable(read)]
    rejected += [_rejected(v, (), None) for v in decided if v.best.failures]
    rejected += [
        _rejected(v, ("near_duplicate",), twins[v.task.index])
        for v in good
        if v.task.index in twins
    ]
    rejected.sort(key=lambda row: row["index"])
    (folder / IMAGES).mkdir(exist_ok=True)
    _write_lines(folder / ROWS, (_row(v, read, recipe.data, folder) for v in accepted))
    _write_lines(folder / REJECTED, rejected)
    report = {
        "rows": {
            "read": len(read.rows),
            "accepted": len(accepted),
            "rejected": len(rejected),
            "open": len(verdicts) - len(decided),
        },
        "rejected_by": dict(Counter(row["reasons"][0] for row in rejected).most_common()),
        "gates": _gate_counts(decided, len(twins)),
        "answers_not_judged": len(check.problems),
        "steps": {name: _step_counts(name, journal) for name in STEPS},
        "usd": round(sum(entry.cost for entry in journal.entries), 6),
    }
    write_whole(folder / REPORT, [json.dumps(report, indent=1), "\n"])
    if accepted:
        _check(folder / ROWS)
    return report


def _verdict(
    recipe: SynthesisRecipe, task: SynthesisTask, journal: StepJournal, check: CachedAnswerChecker
) -> _Verdict:
    candidates = []
    for sample in range(recipe.samples):
        entries = {
            name: journal.finished(task.key, name, sample_of(name, sample)) for name in STEPS
        }
        candidate = gate_candidate(entries, sample, task.reference, recipe.gates, check)
        if candidate is not None:
            candidates.append(candidate)
    good = any(not candidate.failures for candidate in candidates)
    return _Verdict(task, candidates, good or len(candidates) == recipe.samples)


def _twins(recipe: SynthesisRecipe, good: list[_Verdict]) -> dict[int, int]:
    """{index of a row: index of the earlier row that it nearly repeats}"""
    if recipe.gates.max_similarity is None:
        return {}
    texts = [v.best.reasoning or "" for v in good]
    duplicates = near_duplicates(texts, recipe.gates.max_similarity)
    return {good[later].task.index: good[first].task.index for later, first in duplicates.items()}


def _row(verdict: _Verdict, read: ReadRows, limits: RowsConfig, folder: Path) -> dict[str, Any]:
    """Makes a row for the trainer: the turns of the source row, then the reasoning."""
    task, chosen = verdict.task, verdict.best
    target = f"<think>\n{chosen.reasoning}\n</think>\n<answer>{task.answer}</answer>"
    turns = [{"role": turn["role"], "content": _marked(turn["content"])} for turn in task.messages]
    return {
        "id": task.key,
        "messages": [*turns, {"role": "assistant", "content": with_marks_escaped(target)}],
        "images": _save_images(read.rows[task.index], limits, folder),
        "answer": task.reference,
        "meta": {"source_row": task.index + 1, "sample": chosen.sample},
    }


def _marked(parts: list[dict[str, Any]]) -> str:
    return "".join(
        IMAGE_MARK if part["type"] == "image" else with_marks_escaped(part["text"])
        for part in parts
    )


def _save_images(row: Row, limits: RowsConfig, folder: Path) -> list[str]:
    """Saves the images of a row under names made from their content. Returns their paths relative
    to the folder."""
    paths = []
    for blob in read_images(row, limits):
        name = f"{IMAGES}/{hashlib.sha256(blob.data).hexdigest()[:24]}.{blob.format.lower()}"
        if not (folder / name).exists():
            partial = folder / f"{name}.partial"
            partial.write_bytes(blob.data)
            partial.replace(folder / name)
        paths.append(name)
    return paths


def _unusable(read: ReadRows) -> list[tuple[int, str, str]]:
    problems = [(index, "bad_row", str(problem)) for index, problem in read.problems]
    return problems + [
        (index, "duplicate_row", f"row {first + 1} is the same") for index, first in read.duplicates
    ]


def _rejected_problem(index: int, reason: str, detail: str) -> dict[str, Any]:
    return {"index": index, "reasons": [reason], "detail": detail}


def _rejected(verdict: _Verdict, reasons: tuple[str, ...], twin: int | None) -> dict[str, Any]:
    chosen = verdict.best
    row = {
        "index": verdict.task.index,
        "id": verdict.task.key,
        "question": verdict.task.question,
        "answer": verdict.task.reference,
        "reasons": [*reasons, *chosen.failures],
        "samples": [list(c.failures) for c in verdict.candidates],
        "reasoning": chosen.reasoning,
    }
    return row if twin is None else row | {"detail": f"nearly repeats row {twin + 1}"}


def _gate_counts(decided: list[_Verdict], num_twins: int) -> dict[str, int]:
    """{gate: number of candidates that it rejected}. One candidate may fail several gates."""
    counts = Counter(name for v in decided for c in v.candidates for name in c.failures)
    gates = {name: counts[name] for name in (*STEP_GATES, *TEXT_GATES)}
    num_candidates = sum(len(v.candidates) for v in decided)
    return {"candidates": num_candidates} | gates | {"near_duplicate": num_twins}


def _step_counts(name: str, journal: StepJournal) -> dict[str, Any]:
    entries = [entry for entry in journal.entries if entry.step == name]
    usage = sum((entry.usage for entry in entries), Usage())
    return {
        "finished": sum(entry.text is not None for entry in entries),
        "failed": sum(entry.text is None for entry in entries),
        "attempts": sum(entry.attempts for entry in entries),
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "tokens_partly_estimated": usage.estimated,
        "usd": round(sum(entry.cost for entry in entries), 6),
    }


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    write_whole(path, (json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _check(path: Path) -> None:
    """Reads the rows back as the trainer does. An error here is a defect of this package."""
    for row in load_rows(str(path)):
        assert row.target is not None
        assert row.answer is not None
