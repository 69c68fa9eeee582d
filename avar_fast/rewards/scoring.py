"""The rewards of a run: each completion by every function, whatever the functions do."""

import functools
import queue
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .functions import STANDARD, Problem
from .process import RewardProcess, RewardTimeoutError
from .rules import RULES

Values = list[float | None]
Failure = tuple[str, list[int]]
"""(what is wrong, the completions that have no reward for it)"""


class RewardError(RuntimeError):
    """A reward failed and the recipe says to stop; the message names function, row and cause."""


@dataclass(frozen=True)
class Completions:
    """What reward functions are asked about; lists of one length."""

    prompts: list[list[dict[str, Any]]]
    """Turns, as in a row's messages."""
    texts: list[str]
    completion_ids: list[list[int]]
    columns: dict[str, list[Any]]
    """Of the data set; ``answer``, the reference as text or None, is always there."""
    rows: list[str]
    """Where each prompt comes from, for messages."""

    def arguments(self) -> dict[str, list[Any]]:
        """As TRL hands them to a reward function."""
        turns = [[{"role": "assistant", "content": text}] for text in self.texts]
        given = dict(zip(STANDARD, (self.prompts, turns, self.completion_ids), strict=True))
        return self.columns | given

    def groups(self) -> list[range]:
        """Stretches of completions of one row."""
        starts = [i for i, row in enumerate(self.rows) if i == 0 or row != self.rows[i - 1]]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(self.rows)], strict=True)]


@dataclass(frozen=True)
class RewardProblem:
    """A reward that could not be had."""

    name: str
    row: str
    what: str
    count: int
    """Completions that have no reward for it."""

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
    values: dict[str, Values]
    """Reward of every completion by name; None where the function does not apply, 0 where it
    failed."""
    problems: list[RewardProblem]

    @property
    def num_failed(self) -> int:
        return sum(problem.count for problem in self.problems)


@dataclass
class Rewards:
    """Functions by name: rules that cannot hang run here, all else in processes with a
    deadline."""

    names: tuple[str, ...]
    """Built-in rules (``RULES``) and ``package.module:function``."""
    seconds: float = 60.0
    """For one function and all completions of a call; of a user's function that fails, as long
    again to find out at which completions."""
    row_seconds: float = 5.0
    """For one completion, of a rule that runs in a process or of a function that failed."""
    processes: int = 2
    """That share the completions of such a rule."""
    numeric_tolerance: float = 0.01
    decimals: int = 6
    """That numbers which are not exact are compared to, by accuracy."""
    workers: dict[str, list[RewardProcess]] = field(default_factory=dict, init=False)

    def start(self, columns: Iterable[str]) -> None:
        """Starts the processes, once for a run.

        Args:
            columns: of the data set.

        Raises:
            ValueError: a function that cannot be loaded, or takes an argument that is no column.
        """
        known = {*STANDARD, *columns, "answer"}
        for name in self.names:
            if name in RULES and not RULES[name].can_hang:
                continue
            count = self.processes if name in RULES else 1
            self.workers[name] = [RewardProcess(name) for _ in range(count)]
            for worker in self.workers[name]:
                missing = [p for p in worker.start() if p not in known]
                if missing:
                    raise ValueError(
                        f"reward {name} must take arguments that the data set has as columns"
                        f" ({', '.join(sorted(known))}); it takes {', '.join(missing)} too. Give"
                        " it a default, or add the column."
                    )

    def score(self, asked: Completions) -> Scored:
        """All rewards of some completions; the functions run side by side."""
        values: dict[str, Values] = {}
        problems: list[RewardProblem] = []
        with ThreadPoolExecutor(max(len(self.names), 1)) as pool:
            results = list(pool.map(lambda name: self._values(name, asked), self.names))
        for name, (scores, wrong) in zip(self.names, results, strict=True):
            values[name] = scores
            for what, failed in wrong:
                row = asked.rows[failed[0]] if failed else ""
                problems.append(RewardProblem(name, row, what, len(failed)))
                for i in failed:
                    scores[i] = 0.0
        for i, row in enumerate(asked.rows):
            if self.names and all(values[name][i] is None for name in self.names):
                what = "gave nothing: every function returned None"
                problems.append(RewardProblem(", ".join(self.names), row, what, 1))
        return Scored(values, problems)

    def close(self) -> None:
        for worker in [w for some in self.workers.values() for w in some]:
            worker.close()
        self.workers.clear()

    def _values(self, name: str, asked: Completions) -> tuple[Values, list[Failure]]:
        if name not in RULES:
            return self._of_function(name, asked)
        if RULES[name].can_hang:
            return self._row_by_row(name, asked)
        rule = RULES[name].score
        if name == "numeric":
            rule = functools.partial(rule, tolerance=self.numeric_tolerance)
        pairs = zip(asked.texts, asked.columns["answer"], strict=True)
        return [rule(text, answer) for text, answer in pairs], []

    def _of_function(self, name: str, asked: Completions) -> tuple[Values, list[Failure]]:
        """All completions in one call, and in smaller ones where that fails as a whole."""
        arguments = asked.arguments()
        values, problems = self._call(name, arguments, self.seconds)
        if not (problems and problems[0].everywhere):
            return values, [(what, [i]) for i, what, _ in problems]
        values, failures = self._in_parts(name, arguments, asked.groups())
        at_fault = [i for _, indices in failures for i in indices]
        if len(at_fault) in (0, len(values)):  # nothing is narrowed: the first cause says it all
            failures = [(problems[0].what, sorted(at_fault))]
        return values, failures

    def _in_parts(
        self, name: str, arguments: dict[str, list[Any]], groups: list[range]
    ) -> tuple[Values, list[Failure]]:
        """Asks about each group by itself, then about each completion of the groups that fail: a
        function may compare the completions of a group, but not those of several."""
        values: Values = [None] * groups[-1].stop
        failures: list[Failure] = []
        late: dict[str, list[int]] = {}
        end = time.monotonic() + self.seconds
        unasked = f"was not reached within {self.seconds:g} s"
        parts = groups if len(groups) > 1 else _one_by_one(groups[0])
        todo = deque((part, unasked) for part in parts)
        while todo:
            part, why = todo.popleft()
            limit = min(self.row_seconds * len(part), end - time.monotonic())
            if limit <= 0:
                late.setdefault(why, []).extend(part)
                continue
            some = {key: listed[part.start : part.stop] for key, listed in arguments.items()}
            values[part.start : part.stop], problems = self._call(name, some, limit)
            if len(part) > 1 and problems and problems[0].everywhere:
                todo += [(one, problems[0].what) for one in _one_by_one(part)]
            else:
                failures += [(what, [part[i]]) for i, what, _ in problems]
        failures += late.items()
        return values, sorted(failures, key=lambda failure: failure[1][0])

    def _call(
        self, name: str, arguments: dict[str, list[Any]], seconds: float
    ) -> tuple[Values, list[Problem]]:
        """A function's rewards, whatever becomes of its process."""
        (worker,) = self.workers[name]
        try:
            return worker.call(arguments, seconds)
        except RewardTimeoutError:
            what = f"took longer than {round(seconds, 1):g} s and was killed"
        except (EOFError, ValueError) as error:
            what = f"failed: {error}"
        return [None] * len(arguments["completions"]), [Problem(0, what, everywhere=True)]

    def _row_by_row(self, name: str, asked: Completions) -> tuple[Values, list[Failure]]:
        """Each process takes the next completion when it is done with one; a completion that hangs
        costs its own reward alone."""
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(asked.texts)):
            todo.put(i)
        values: Values = [None] * len(asked.texts)
        problems: list[Problem] = []
        end = time.monotonic() + self.seconds

        def serve(worker: RewardProcess) -> None:
            while True:
                try:
                    i = todo.get_nowait()
                except queue.Empty:
                    return
                limit = min(self.row_seconds, end - time.monotonic())
                given = (asked.texts[i], asked.columns["answer"][i])
                if name == "accuracy":
                    given += (self.decimals,)
                try:
                    if limit <= 0:
                        raise RewardTimeoutError
                    values[i], wrong = worker.call(given, limit)
                    problems.extend(Problem(i, problem.what) for problem in wrong)
                except RewardTimeoutError:
                    what = f"took longer than {self.row_seconds:g} s and was killed"
                    late = f"was not reached within {self.seconds:g} s"
                    problems.append(Problem(i, what if limit > 0 else late))
                except (EOFError, ValueError) as error:
                    problems.append(Problem(i, f"failed: {error}"))

        with ThreadPoolExecutor(self.processes) as pool:
            list(pool.map(serve, self.workers[name]))
        return values, [(what, [i]) for i, what, _ in sorted(problems)]


def _one_by_one(part: range) -> list[range]:
    return [range(i, i + 1) for i in part]
