"""Predictions on disk as they come: one JSON line per chunk, files of their own for every rank.

NAME.parts/settings.json   what the run is, so that another is not mixed into it
NAME.parts/projects.jsonl  version and commit of this project, of each start
NAME.parts/rank-R.jsonl    {"benchmark", "predictions", "vas"} of each chunk, synced
NAME.parts/judge-R.jsonl   what a judge said of predictions, where one is asked
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..journal import Journal, differing, whole_lines, write_whole
from .answerer import Chunk
from .prediction import Prediction
from .prompt_vas import TableSums

SETTINGS, PROJECTS, PREDICTIONS = "settings.json", "projects.jsonl", "rank-*.jsonl"


@dataclass(frozen=True)
class Judgment:
    """What came of asking a judge about a prediction."""

    benchmark: str
    id: str
    replies: list[str]
    parsed: str | None = None
    right: bool = False
    error: str | None = None
    """Why there is no verdict; the rule's then stands, and a resumed run asks again."""

    def applied(self, prediction: Prediction) -> Prediction:
        if self.error is not None:
            return replace(prediction, judge_replies=self.replies, judge_error=self.error)
        return replace(prediction, parsed=self.parsed, right=self.right, judge_replies=self.replies)


class PredictionJournal:
    """The folder beside the result while a run is not finished.

    Args:
        out: the result's JSON.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".parts")

    def claim(self, identity: dict[str, Any], project: dict[str, Any]) -> None:
        """Takes the folder for a run of this identity, or goes on with one; a run that ended before
        its first prediction is none.

        Args:
            identity: what must be the same for predictions to be of one run.
            project: whose version and commit answer from here on.

        Raises:
            ValueError: it belongs to another; the first setting that differs is named.
        """
        held = self.folder / SETTINGS
        if held.is_file() and not self.is_empty:
            before = json.loads(held.read_text())
            require_same(before, identity, f"{self.folder} holds predictions")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / PROJECTS).unlink(missing_ok=True)
            write_whole(held, [json.dumps(identity, indent=1)])
        with closing(Journal(self.folder / PROJECTS)) as projects:
            projects.add(project)

    def projects(self) -> list[dict[str, Any]]:
        """What answered: version and commit of each start, in order, one after the other that is
        the same left out."""
        found: list[dict[str, Any]] = []
        for project in self._lines(PROJECTS):
            if not found or found[-1] != project:
                found.append(project)
        return found

    def read(self) -> tuple[dict[tuple[str, str], Prediction], dict[str, TableSums]]:
        """{(benchmark, id): prediction} and the VAS table of each benchmark, from the files of all
        ranks of all runs so far.

        Of a question that could not be asked at first, the later prediction counts.
        """
        predictions: dict[tuple[str, str], Prediction] = {}
        tables: dict[str, TableSums] = {}
        for chunk in self._lines(PREDICTIONS):
            for values in chunk["predictions"]:
                prediction = Prediction(**values)
                key = (prediction.benchmark, prediction.id)
                if key not in predictions or predictions[key].error is not None:
                    predictions[key] = prediction
            tables.setdefault(chunk["benchmark"], TableSums()).add_dict(chunk["vas"])
        return predictions, tables

    def judgments(self) -> dict[tuple[str, str], Judgment]:
        """{(benchmark, id): judgment}; the later one where the judge first came to no verdict."""
        found: dict[tuple[str, str], Judgment] = {}
        for values in self._lines("judge-*.jsonl"):
            judgment = Judgment(**values)
            key = (judgment.benchmark, judgment.id)
            if key not in found or found[key].error is not None:
                found[key] = judgment
        return found

    def _lines(self, files: str) -> Iterator[dict[str, Any]]:
        for file in sorted(self.folder.glob(files)):
            for line in whole_lines(file):
                yield json.loads(line.content)

    @contextmanager
    def predictions_of(self, rank: int) -> Iterator[Callable[[str, Chunk], None]]:
        """Gives what adds a benchmark's chunk to this rank's file."""
        lines = Journal(self.folder / f"rank-{rank}.jsonl")

        def add(benchmark: str, chunk: Chunk) -> None:
            values = [prediction.as_dict() for prediction in chunk.predictions]
            lines.add({"benchmark": benchmark, "predictions": values, "vas": chunk.table.as_dict()})

        with closing(lines):
            yield add

    @contextmanager
    def judgments_of(self, rank: int) -> Iterator[Callable[[Judgment], object]]:
        """Gives what adds a judgment to this rank's file."""
        lines = Journal(self.folder / f"judge-{rank}.jsonl")
        with closing(lines):
            yield lambda judgment: lines.add(asdict(judgment))

    @property
    def is_empty(self) -> bool:
        """Nothing has been answered yet."""
        return not any(file.stat().st_size for file in self.folder.glob(PREDICTIONS))

    def discard(self) -> None:
        """Takes away what a run without a prediction has left."""
        for file in [
            *self.folder.glob(PREDICTIONS),
            self.folder / PROJECTS,
            self.folder / SETTINGS,
        ]:
            file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def require_same(before: dict[str, Any], identity: dict[str, Any], what: str) -> None:
    """Raises ValueError that names the first setting in which two identities differ."""
    for name in differing(before, identity):
        was, now = before.get(name), identity.get(name)
        raise ValueError(
            f"{what} with {name} = {json.dumps(was)}; this run has {json.dumps(now)}. Use the"
            " same settings, another --out, or remove it."
        )
