"""The journal of a run: predictions are written to disk as they arrive. Each rank has its own
files.

NAME.parts/settings.json   identity of the run, so that no other run is mixed into it
NAME.parts/projects.jsonl  version and commit of this project, one line per start
NAME.parts/rank-R.jsonl    {"benchmark", "predictions", "vas"}, one synced line per chunk
NAME.parts/judge-R.jsonl   judgments, if the run uses a judge
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
    """A judge's replies on a prediction, and the verdict that follows from them."""

    benchmark: str
    id: str
    replies: list[str]
    parsed: str | None = None
    right: bool = False
    error: str | None = None
    """Why the judge gave no verdict. The rule's verdict then stays, and a resumed run asks
    again."""

    def apply_to(self, prediction: Prediction) -> Prediction:
        """The prediction with this verdict, or with the error if there is none."""
        if self.error is not None:
            return replace(prediction, judge_replies=self.replies, judge_error=self.error)
        return replace(prediction, parsed=self.parsed, right=self.right, judge_replies=self.replies)


class PredictionJournal:
    """The folder next to the result file that holds an unfinished run.

    Args:
        out: path of the result's JSON.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".parts")

    def claim(self, identity: dict[str, Any], project: dict[str, Any]) -> None:
        """Claims the folder for a run, or resumes the run in it. A run that ended before its first
        prediction does not count.

        Args:
            identity: values that identify the run.
            project: version and commit of this project, as of this start.

        Raises:
            ValueError: the folder belongs to another run; the message names the first setting that
                differs.
        """
        settings_file = self.folder / SETTINGS
        if settings_file.is_file() and not self.is_empty:
            before = json.loads(settings_file.read_text())
            require_same(before, identity, f"{self.folder} holds predictions")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / PROJECTS).unlink(missing_ok=True)
            write_whole(settings_file, [json.dumps(identity, indent=1)])
        with closing(Journal(self.folder / PROJECTS)) as projects:
            projects.add(project)

    def projects(self) -> list[dict[str, Any]]:
        """Version and commit of this project at each start, in order. Consecutive repeats are left
        out."""
        projects: list[dict[str, Any]] = []
        for project in self._lines(PROJECTS):
            if not projects or projects[-1] != project:
                projects.append(project)
        return projects

    def read(self) -> tuple[dict[tuple[str, str], Prediction], dict[str, TableSums]]:
        """Reads the files of all ranks.

        If a question could not be asked at first and was answered later, the later prediction
        counts.

        Returns:
            {(benchmark, id): prediction} and {benchmark: sums of its VAS table}.
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
        """{(benchmark, id): judgment}. If the judge gave no verdict at first, the later judgment
        counts."""
        judgments: dict[tuple[str, str], Judgment] = {}
        for values in self._lines("judge-*.jsonl"):
            judgment = Judgment(**values)
            key = (judgment.benchmark, judgment.id)
            if key not in judgments or judgments[key].error is not None:
                judgments[key] = judgment
        return judgments

    def _lines(self, files: str) -> Iterator[dict[str, Any]]:
        for file in sorted(self.folder.glob(files)):
            for line in whole_lines(file):
                yield json.loads(line.content)

    @contextmanager
    def open_predictions(self, rank: int) -> Iterator[Callable[[str, Chunk], None]]:
        """Opens the file of a rank and yields a function that appends a benchmark's chunk to it."""
        lines = Journal(self.folder / f"rank-{rank}.jsonl")

        def add(benchmark: str, chunk: Chunk) -> None:
            values = [prediction.as_dict() for prediction in chunk.predictions]
            lines.add({"benchmark": benchmark, "predictions": values, "vas": chunk.table.as_dict()})

        with closing(lines):
            yield add

    @contextmanager
    def open_judgments(self, rank: int) -> Iterator[Callable[[Judgment], object]]:
        """Opens the file of a rank and yields a function that appends a judgment to it."""
        lines = Journal(self.folder / f"judge-{rank}.jsonl")
        with closing(lines):
            yield lambda judgment: lines.add(asdict(judgment))

    @property
    def is_empty(self) -> bool:
        """Whether the folder holds no prediction."""
        return not any(file.stat().st_size for file in self.folder.glob(PREDICTIONS))

    def discard(self) -> None:
        """Removes the files of a run that has made no prediction."""
        for file in [
            *self.folder.glob(PREDICTIONS),
            self.folder / PROJECTS,
            self.folder / SETTINGS,
        ]:
            file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def remove(self) -> None:
        """Removes the folder with everything in it."""
        shutil.rmtree(self.folder)


def require_same(before: dict[str, Any], identity: dict[str, Any], what: str) -> None:
    """Checks that two identities are equal.

    Raises:
        ValueError: they differ; the message names the first setting that does.
    """
    for name in differing(before, identity):
        was, now = before.get(name), identity.get(name)
        raise ValueError(
            f"{what} with {name} = {json.dumps(was)}; this run has {json.dumps(now)}. Use the"
            " same settings, another --out, or remove it."
        )
