"""Runs one evaluation for the command line and writes its result file."""

import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from ..attention import attach
from ..config.rollout import RolloutConfig
from ..loading import Loaded, load, load_processors, require_model
from ..models import holds_adapters
from ..rollout import open_engine
from .answerer import Answerer
from .journal import PredictionJournal, require_same
from .judge.config import JudgeConfig
from .provenance import project, weights_digest
from .ranks import Ranks
from .result import read_result, write_json
from .run import identity, run
from .settings import Settings
from .table import report
from .tasks import EvalTask


class Model:
    """A model named by its path. It is loaded on first use, but a missing model is reported at
    once, before data are read.

    Args:
        path: folder or hub name.
        dtype: float32 or bfloat16.
        device: device of this rank.
        rollout: settings of the engine that generates.
    """

    def __init__(
        self, path: str, dtype: str, device: torch.device, rollout: RolloutConfig | None = None
    ) -> None:
        require_model(path)
        self.dtype, self.device, self.rollout = dtype, device, rollout or RolloutConfig()
        self.name = {"path": path, "weights": weights_digest(path), "dtype": dtype}

    @cached_property
    def loaded(self) -> Loaded:
        transformers_logging.disable_progress_bar()
        loaded = load(str(self.name["path"]), getattr(torch, self.dtype), self.device)
        attach(loaded.model, loaded.tokenizer)
        return loaded

    def pixels(self, settings: Settings) -> list[int]:
        """The least and the most pixels of an image, as the model sees it. Scores of models that
        see images of other sizes do not compare."""
        limits = (settings.min_pixels, settings.max_pixels)
        size = load_processors(str(self.name["path"]), *limits).image_processor.size
        return [size["shortest_edge"], size["longest_edge"]]

    def answerer(self, settings: Settings, batch_size: int) -> Answerer:
        """Makes an answerer with the engine of ``rollout``.

        Raises:
            ValueError: the path cannot be loaded, or the model has an unsupported type.
            RolloutError: vLLM cannot be used.
        """
        path, uses_model = str(self.name["path"]), self.rollout.engine == "model"
        if not uses_model and holds_adapters(path):
            raise ValueError(
                f"--engine {self.rollout.engine} needs whole weights; {path} holds adapters. Use"
                " --engine model, or merge them."
            )
        loaded = self.loaded if uses_model else load_processors(path)
        answerer = Answerer(loaded, settings, batch_size)
        answerer.engine = open_engine(
            self.rollout,
            answerer.engine,
            path=path,
            dtype=self.dtype,
            system_prompt=settings.system_prompt,
            max_length=None,
            min_length=settings.max_new_tokens,
            max_rows=batch_size,
        )
        return answerer


def evaluate_to(
    out: Path,
    model: Model,
    settings: Settings,
    tasks: list[EvalTask],
    ranks: Ranks,
    batch_size: int,
    judge: JudgeConfig | None,
    shown: bool = True,
) -> int:
    """Runs an evaluation, writes the result file, and prints its tables if ``shown``.

    Returns:
        The exit code. It is 1 if questions could not be asked or the judge gave no verdict on
        answers, else 0.

    Raises:
        ValueError: the file exists, or its journal belongs to a run with other settings.
    """
    run_identity = identity(model.name, settings, tasks, judge)
    journal = PredictionJournal(out)
    ranks.agree(lambda: _claim(out, journal, run_identity))
    try:
        outcome = run(lambda: model.answerer(settings, batch_size), tasks, journal, ranks, judge)
    except BaseException:
        if ranks.size == 1 and journal.is_empty:  # for example, the model could not be loaded
            journal.discard()
        raise
    if outcome is None:
        return 0
    *earlier, last = journal.projects()
    head = {
        "project": last,
        "earlier_projects": earlier,
        "model": model.name,
        "settings": settings.as_dict(),
        "pixels": model.pixels(settings),
        "judge": None if judge is None else judge.name,
        "identity": run_identity,
        "batch_size": batch_size,
        "ranks": ranks.size,
        "seconds": round(outcome.seconds, 1),
    }
    write_json(out, head, outcome.summaries, outcome.predictions)
    if shown:
        print(report(read_result(out)))
    for problem in outcome.problems:
        print(f"warning: counts as wrong: {problem}", file=sys.stderr)
    summaries = outcome.summaries.values()
    unread = sum(summary.num_unread for summary in summaries)
    unjudged = sum(summary.judge["failed"] for summary in summaries if summary.judge)
    if unread:
        _print_incomplete(out, journal, f"{unread} questions could not be asked and count as wrong")
    if unjudged:
        _print_incomplete(
            out, journal, f"{unjudged} answers could not be judged and count as wrong"
        )
    if unread or unjudged:
        return 1
    journal.remove()
    return 0


def evaluate_once(
    out: Path, model: Model, settings: Settings, tasks: list[EvalTask], ranks: Ranks,
    batch_size: int, judge: JudgeConfig | None,
) -> int:  # fmt: skip
    """Calls ``evaluate_to`` without tables, unless the file already holds the result of this run.

    Raises:
        ValueError: as ``evaluate_to``, or the file is the result of another run.
    """
    run_identity = identity(model.name, settings, tasks, judge)
    if ranks.agree(lambda: is_finished(out, run_identity)):
        return 0
    return evaluate_to(out, model, settings, tasks, ranks, batch_size, judge, shown=False)


def _print_incomplete(out: Path, journal: PredictionJournal, problem: str) -> None:
    print(
        f"{problem} in {out}. Fix the cause, remove that file and repeat the command: it asks only"
        f" for them ({journal.folder} keeps the others).",
        file=sys.stderr,
    )


def is_finished(out: Path, run_identity: dict[str, Any]) -> bool:
    """Whether a file is the result of a run of this identity; False if there is no file.

    Raises:
        ValueError: the file is the result of another run.
    """
    if not out.exists():
        return False
    require_same(read_result(out).head["identity"], run_identity, f"{out} is a result")
    return True


def _claim(out: Path, journal: PredictionJournal, run_identity: dict[str, Any]) -> None:
    if out.exists():
        raise ValueError(f"--out {out} is there already. Name another, or remove it.")
    journal.claim(run_identity, project())
