"""Scores completions with every reward function of a run, even if functions fail or hang."""

import functools
import queue
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .completions import Completions
from .functions import IMAGES, OF_TRL_ALONE, STANDARD, STATE, Reward, RewardFault
from .process import RewardProcess, RewardTimeoutError
from .rules import RULES

Values = list[Reward]
Failure = tuple[str, list[int]]
"""(description, indices of the completions that have no reward because of it)"""


class RewardError(RuntimeError):
    """A reward failed and the recipe says to stop. The message names function, row and cause."""


@dataclass(frozen=True)
class RewardProblem:
    """A failed reward."""

    name: str
    """Name of the reward function."""
    row: str
    """Place of the first row with the failure."""
    what: str
    """Description of the failure."""
    count: int
    """Number of completions that have no reward because of it."""

    def __str__(self) -> str:
        if not self.count:
            return (
                f"reward {self.name} {self.what}, asked about all completions at once; asked again"
                " in parts it gave every reward"
            )
        more = f", and {self.count - 1} more completions," if self.count > 1 else ""
        return f"reward {self.name} on {self.row}{more} {self.what}"


@dataclass(frozen=True)
class Scored:
    """The rewards of completions."""

    values: dict[str, Values]
    """By function name, the reward of every completion: one number, or a list of one number per
    token; None if the function does not apply, 0 if it failed."""
    problems: list[RewardProblem]
    """All failures."""

    @property
    def num_failed(self) -> int:
        """Number of rewards that failed."""
        return sum(problem.count for problem in self.problems)


@dataclass
class Rewards:
    """The reward functions of a run. Rules that cannot hang run in this process; all other
    functions run in processes with a deadline."""

    names: tuple[str, ...]
    """Built-in rules (``RULES``) and ``package.module:function``."""
    seconds: float = 60.0
    """Time limit of one function for all completions of a call. If a user's function fails, the
    same time again is used to find the completions at which it fails."""
    row_seconds: float = 5.0
    """Time limit for one completion, of a rule that runs in a process or of a failed function."""
    processes: int = 2
    """Number of processes for each rule that runs in processes."""
    numeric_tolerance: float = 0.01
    """Largest relative error of the rule numeric."""
    decimals: int | None = None
    """Decimals to which accuracy compares numbers and mathematics, for benchmarks that do so."""
    workers: dict[str, list[RewardProcess]] = field(default_factory=dict, init=False)
    """The processes by function name."""

    def start(self, columns: Iterable[str]) -> None:
        """Starts the processes, once for a run.

        Args:
            columns: names of the data set's columns.

        Raises:
            ValueError: a function cannot be loaded, or requires an argument that is not a column.
        """
        known = {*STANDARD, *IMAGES, STATE, *columns, "answer"}
        for name in self.names:
            if name in RULES and not RULES[name].can_hang:
                continue
            for worker in self._workers(name):
                missing = [p for p in worker.start().needed if p not in known]
                if missing:
                    raise ValueError(
                        f"reward {name} must take arguments that the data set has as columns"
                        f" ({', '.join(sorted(known))}); it takes {', '.join(missing)} too."
                        f" {_remedy(missing)}"
                    )

    def _workers(self, name: str) -> list[RewardProcess]:
        """The processes of a function; each starts at its first call."""
        if name not in self.workers:
            count = self.processes if name in RULES else 1
            self.workers[name] = [RewardProcess(name) for _ in range(count)]
        return self.workers[name]

    def score(self, completions: Completions) -> Scored:
        """Computes all rewards of completions; the functions run in parallel."""
        values: dict[str, Values] = {}
        problems: list[RewardProblem] = []
        with ThreadPoolExecutor(max(len(self.names), 1)) as pool:
            results = list(pool.map(lambda name: self._values(name, completions), self.names))
        for name, (scores, failures) in zip(self.names, results, strict=True):
            values[name] = scores
            for what, failed in failures:
                row = completions.rows[failed[0]] if failed else ""
                problems.append(RewardProblem(name, row, what, len(failed)))
                for i in failed:
                    scores[i] = 0.0
        for i, row in enumerate(completions.rows):
            if self.names and all(values[name][i] is None for name in self.names):
                what = "gave nothing: every function returned None"
                problems.append(RewardProblem(", ".join(self.names), row, what, 1))
        return Scored(values, problems)

    def close(self) -> None:
        """Kills all processes."""
        for worker in [worker for workers in self.workers.values() for worker in workers]:
            worker.close()
        self.workers.clear()

    def _values(self, name: str, completions: Completions) -> tuple[Values, list[Failure]]:
        if name not in RULES:
            return self._of_function(name, completions)
        if RULES[name].can_hang:
            return self._row_by_row(name, completions)
        rule = RULES[name].score
        if name == "numeric":
            rule = functools.partial(rule, tolerance=self.numeric_tolerance)
        texts = completions.replies() if RULES[name].whole_reply else completions.texts
        pairs = zip(texts, completions.columns["answer"], strict=True)
        return [rule(text, answer) for text, answer in pairs], []

    def _of_function(self, name: str, completions: Completions) -> tuple[Values, list[Failure]]:
        """Scores all completions in one call; if the whole call fails, in smaller calls."""
        (worker,) = self._workers(name)
        try:
            arguments = completions.arguments(images=worker.start().images)
        except ValueError as error:  # it no longer starts, or an image cannot be opened
            return [None] * len(completions.texts), [
                (f"failed: {error}", list(range(len(completions.texts))))
            ]
        values, problems = self._call(name, arguments, self.seconds)
        if not (problems and problems[0].everywhere):
            return values, [(what, [i]) for i, what, _ in problems]
        values, failures = self._in_parts(name, arguments, completions.groups())
        at_fault = [i for _, indices in failures for i in indices]
        if len(at_fault) in (0, len(values)):  # the parts tell no more than the first call did
            failures = [(problems[0].what, sorted(at_fault))]
        return values, failures

    def _in_parts(
        self, name: str, arguments: dict[str, Any], groups: list[range]
    ) -> tuple[Values, list[Failure]]:
        """Scores each group in a call of its own, then each completion of the groups that fail. A
        function may compare completions within a group, but not across groups."""
        values: Values = [None] * groups[-1].stop
        failures: list[Failure] = []
        late: dict[str, list[int]] = {}
        end = time.monotonic() + self.seconds
        unasked = f"was not reached within {self.seconds:g} s"
        parts = groups if len(groups) > 1 else _one_by_one(groups[0])
        todo = deque((part, unasked) for part in parts)
        while todo:
            part, reason = todo.popleft()
            limit = min(self.row_seconds * len(part), end - time.monotonic())
            if limit <= 0:
                late.setdefault(reason, []).extend(part)
                continue
            part_arguments = {
                key: value if key == STATE else value[part.start : part.stop]
                for key, value in arguments.items()
            }
            values[part.start : part.stop], problems = self._call(name, part_arguments, limit)
            if len(part) > 1 and problems and problems[0].everywhere:
                todo += [(single, problems[0].what) for single in _one_by_one(part)]
            else:
                failures += [(what, [part[i]]) for i, what, _ in problems]
        failures += late.items()
        return values, sorted(failures, key=lambda failure: failure[1][0])

    def _call(
        self, name: str, arguments: dict[str, Any], seconds: float
    ) -> tuple[Values, list[RewardFault]]:
        """A function's rewards; if its process fails, a fault instead of an exception."""
        (worker,) = self._workers(name)
        try:
            return worker.call(arguments, seconds)
        except RewardTimeoutError:
            what = f"took longer than {round(seconds, 1):g} s and was killed"
        except (EOFError, ValueError) as error:
            what = f"failed: {error}"
        return [None] * len(arguments["completions"]), [RewardFault(0, what, everywhere=True)]

    def _row_by_row(self, name: str, completions: Completions) -> tuple[Values, list[Failure]]:
        """Scores completions one by one, each process taking the next one when it is free. A
        completion that hangs loses only its own reward. Completions that ``at_once`` decides need
        no process."""
        at_once, answers = RULES[name].at_once, completions.columns["answer"]
        assert at_once is not None
        options = (self.decimals,) if name == "accuracy" else ()
        values: Values = [
            at_once(text, answer, *options)
            for text, answer in zip(completions.texts, answers, strict=True)
        ]
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in [i for i, value in enumerate(values) if value is None]:
            todo.put(i)
        if todo.empty():
            return values, []
        problems: list[RewardFault] = []
        end = time.monotonic() + self.seconds

        def serve(worker: RewardProcess) -> None:
            while True:
                try:
                    i = todo.get_nowait()
                except queue.Empty:
                    return
                limit = min(self.row_seconds, end - time.monotonic())
                try:
                    if limit <= 0:
                        raise RewardTimeoutError
                    arguments = completions.texts[i], answers[i], *options
                    values[i], faults = worker.call(arguments, limit)
                    problems.extend(RewardFault(i, fault.what) for fault in faults)
                except RewardTimeoutError:
                    what = f"took longer than {self.row_seconds:g} s and was killed"
                    late = f"was not reached within {self.seconds:g} s"
                    problems.append(RewardFault(i, what if limit > 0 else late))
                except (EOFError, ValueError) as error:
                    problems.append(RewardFault(i, f"failed: {error}"))

        with ThreadPoolExecutor(self.processes) as pool:
            list(pool.map(serve, self._workers(name)))
        return values, [(what, [i]) for i, what, _ in sorted(problems)]


def _remedy(missing: list[str]) -> str:
    if set(missing) & set(OF_TRL_ALONE):
        return f"Only TRL's trainer has {', '.join(OF_TRL_ALONE)}; give such an argument a default."
    if set(missing) & {"messages", "conversations"}:
        return "Take the turns from prompts."
    return "Give it a default, or add the column."


def _one_by_one(part: range) -> list[range]:
    return [range(i, i + 1) for i in part]
