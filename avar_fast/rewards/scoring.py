"""The rewards of a run: each completion by every function, whatever the functions do."""

import functools
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .functions import IMAGES, OF_TRL_ALONE, STANDARD, STATE, RewardFault, TrainerState
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
    """Of the data set; ``answer`` is always there: the reference as text, several of which any is
    right, or None."""
    rows: list[str]
    """Where each prompt comes from, for messages."""
    opened: list[str] = field(default_factory=list)
    """What the prompt has written of each reply already, such as "<think>"; empty for nothing. The
    format is that of the whole reply; all else sees the completion alone."""
    open_images: Callable[[], list[list[Any]]] | None = None
    """Gives the images of each completion's row, opened; the completions of a row share their list.
    Called where a function takes them."""
    state: TrainerState | None = None

    def arguments(self, images: bool = False) -> dict[str, Any]:
        """As TRL hands them to a reward function; ``images`` opens them."""
        turns = [[{"role": "assistant", "content": text}] for text in self.texts]
        given = dict(zip(STANDARD, (self.prompts, turns, self.completion_ids), strict=True))
        if images and self.open_images is not None:
            opened = self.open_images()
            lone = [some[0] if len(some) == 1 else some or None for some in opened]
            given |= dict(zip(IMAGES, (opened, lone), strict=True))
        more = {} if self.state is None else {STATE: self.state}
        return self.columns | given | more

    def replies(self) -> list[str]:
        """The completions with what the prompt has opened."""
        if not self.opened:
            return self.texts
        return [a + b for a, b in zip(self.opened, self.texts, strict=True)]

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
    decimals: int | None = None
    """That accuracy compares numbers and mathematics to, as a benchmark may have it."""
    workers: dict[str, list[RewardProcess]] = field(default_factory=dict, init=False)

    def start(self, columns: Iterable[str]) -> None:
        """Starts the processes, once for a run.

        Args:
            columns: of the data set.

        Raises:
            ValueError: a function that cannot be loaded, or takes an argument that is no column.
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
        """The processes of a function; each starts when it is first asked."""
        if name not in self.workers:
            count = self.processes if name in RULES else 1
            self.workers[name] = [RewardProcess(name) for _ in range(count)]
        return self.workers[name]

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
        texts = asked.replies() if RULES[name].whole_reply else asked.texts
        pairs = zip(texts, asked.columns["answer"], strict=True)
        return [rule(text, answer) for text, answer in pairs], []

    def _of_function(self, name: str, asked: Completions) -> tuple[Values, list[Failure]]:
        """All completions in one call, and in smaller ones where that fails as a whole."""
        (worker,) = self._workers(name)
        try:
            arguments = asked.arguments(images=worker.start().images)
        except ValueError as error:  # it no longer starts, or an image is gone
            return [None] * len(asked.texts), [(f"failed: {error}", list(range(len(asked.texts))))]
        values, problems = self._call(name, arguments, self.seconds)
        if not (problems and problems[0].everywhere):
            return values, [(what, [i]) for i, what, _ in problems]
        values, failures = self._in_parts(name, arguments, asked.groups())
        at_fault = [i for _, indices in failures for i in indices]
        if len(at_fault) in (0, len(values)):  # nothing is narrowed: the first cause says it all
            failures = [(problems[0].what, sorted(at_fault))]
        return values, failures

    def _in_parts(
        self, name: str, arguments: dict[str, Any], groups: list[range]
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
            some = {
                key: value if key == STATE else value[part.start : part.stop]
                for key, value in arguments.items()
            }
            values[part.start : part.stop], problems = self._call(name, some, limit)
            if len(part) > 1 and problems and problems[0].everywhere:
                todo += [(one, problems[0].what) for one in _one_by_one(part)]
            else:
                failures += [(what, [part[i]]) for i, what, _ in problems]
        failures += late.items()
        return values, sorted(failures, key=lambda failure: failure[1][0])

    def _call(
        self, name: str, arguments: dict[str, Any], seconds: float
    ) -> tuple[Values, list[RewardFault]]:
        """A function's rewards, whatever becomes of its process."""
        (worker,) = self._workers(name)
        try:
            return worker.call(arguments, seconds)
        except RewardTimeoutError:
            what = f"took longer than {round(seconds, 1):g} s and was killed"
        except (EOFError, ValueError) as error:
            what = f"failed: {error}"
        return [None] * len(arguments["completions"]), [RewardFault(0, what, everywhere=True)]

    def _row_by_row(self, name: str, asked: Completions) -> tuple[Values, list[Failure]]:
        """Each process takes the next completion when it is done with one; a completion that hangs
        costs its own reward alone. What is decided at once needs none."""
        at_once, answers = RULES[name].at_once, asked.columns["answer"]
        assert at_once is not None
        options = (self.decimals,) if name == "accuracy" else ()
        values: Values = [
            at_once(text, answer, *options)
            for text, answer in zip(asked.texts, answers, strict=True)
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
                    values[i], wrong = worker.call((asked.texts[i], answers[i], *options), limit)
                    problems.extend(RewardFault(i, problem.what) for problem in wrong)
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
