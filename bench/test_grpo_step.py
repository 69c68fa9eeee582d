"""Times whole steps of stage grpo: prompts shared, as separate rows, and TRL's GRPOTrainer.

Each trainer runs in a process of its own. They take turns step by step, so that noise of the
machine hits all. Seconds are split into sampling, rewards, scoring and update. Nothing is timed
before all trainers have the same gradient norm on the same completions.

    pytest bench/test_grpo_step.py -k 30M-300-G8-32    # one case, 9 minutes on two cores

TRL comes with the extra ``bench``.
"""

import contextlib
import statistics
from typing import Any, NamedTuple

import pytest
import torch

from .grpo_step.turns import Trainer
from .grpo_step.world import write_model, write_rows
from .measure import quantiles

TRL = "bench.grpo_step.trl_trainer"
OURS = "bench.grpo_step.ours"
SEPARATE = {"grpo": {"shared_prompts": False, "scoring": "always"}}
PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "avar": (OURS, {"visual": True}),
    "avar_without_vars": (OURS, {"visual": False}),
    "avar_separate_rows": (OURS, {"visual": True} | SEPARATE),
    "trl": (TRL, {"visual": False}),
    "trl_head_on_completions": (TRL, {"visual": False, "compact": True}),
    "trl_with_vars": (TRL, {"visual": True}),
}
GATE = 2e-3  # relative; TRL adds 1e-4 to the deviation of a group's rewards, we 1e-6
PROMPTS = 2
ALL, OWN = tuple(PROVIDERS), tuple(PROVIDERS)[:3]


class Case(NamedTuple):
    """A step of two prompts."""

    size: str
    length: int
    group: int
    new_tokens: int
    providers: tuple[str, ...]
    rounds: int

    @property
    def shape(self) -> str:
        return f"{self.size}, G = {self.group}, {self.new_tokens} new tokens, {PROMPTS} prompts"

    def __str__(self) -> str:
        return f"{self.size.replace(' ', '')}-{self.length}-G{self.group}-{self.new_tokens}"


CASES = [
    Case("30 M", 300, 8, 32, ALL, 3),
    Case("30 M", 300, 8, 256, OWN, 2),
    Case("30 M", 1200, 8, 32, OWN, 2),
    Case("30 M", 1200, 8, 256, OWN, 2),
    *(Case("30 M", 300, group, 32, OWN[::2], 2) for group in (2, 4, 16, 32)),
    Case("3B width", 300, 8, 32, OWN[::2], 2),
]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """trainer(case, provider, **settings): a started trainer, which is closed after the test."""
    folder = tmp_path_factory.mktemp("grpo_step")
    number = 0

    def start(case: Case, provider: str, **settings: Any) -> Trainer:
        nonlocal number
        number += 1
        model, rows = folder / case.size.replace(" ", ""), folder / str(case.length)
        if not model.exists():
            write_model(model, case.size)
        if not rows.exists():
            write_rows(rows, case.length)
        module, own = PROVIDERS[provider]
        common = {
            "model": str(model), "rows": str(rows), "output": str(folder / f"run{number}"),
            "threads": torch.get_num_threads(), "prompts": PROMPTS, "group": case.group,
            "new_tokens": case.new_tokens, "micro_batch": min(case.group, 8),
        }  # fmt: skip
        return Trainer(module, common | own | settings, folder / f"{number}.log")

    return start


def gate(trainer, case: Case) -> None:
    """All providers give the same gradient on the same completions, with the same rewards."""
    norms = {}
    for provider in case.providers:
        with contextlib.closing(trainer(case, provider, fixed=True, visual=False)) as started:
            norms[provider] = started.step()["grad_norm"]
    middle = statistics.median(norms.values())
    assert middle > 0, norms
    assert all(abs(norm - middle) < GATE * middle for norm in norms.values()), norms


@pytest.mark.parametrize("case", CASES, ids=str)
def test_grpo_step(benchmark, table, trainer, case):
    if any(provider.startswith("trl") for provider in case.providers):
        pytest.importorskip("trl", reason='TRL is not installed: pip install -e ".[bench]"')
    gate(trainer, case)
    with contextlib.ExitStack() as stack:
        trainers = {}
        for provider in case.providers:
            trainers[provider] = stack.enter_context(contextlib.closing(trainer(case, provider)))
        rounds = 1 if benchmark.disabled else case.rounds + 1
        steps = benchmark.pedantic(in_turns, args=(trainers, rounds), rounds=1)
    if not benchmark.disabled:
        record(table, case, steps)


def in_turns(trainers: dict[str, Trainer], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each trainer says of its steps."""
    steps: dict[str, list[dict[str, Any]]] = {provider: [] for provider in trainers}
    for _ in range(rounds):
        for provider, started in trainers.items():
            steps[provider].append(started.step())
    return steps


def record(table, case: Case, steps: dict[str, list[dict[str, Any]]]) -> None:
    """Adds rows of all steps but the first, in which caches fill."""
    for provider, every in steps.items():
        measured = every[1:]
        key = dict(op="grpo_step", provider=provider, shape=case.shape, length=case.length)
        key |= dict(dtype="float32")

        def add(mode: str, values: list[float], metric: str, unit: str, key: Any = key) -> None:
            table.add(quantiles(values), None, mode=mode, metric=metric, unit=unit, **key)

        add("step", [step["seconds"] for step in measured], "time", "s")
        for part in measured[0]["parts"]:
            add(part, [step["parts"][part] for step in measured], "time", "s")
        speeds = [step["tokens"] / step["seconds"] for step in measured]
        add("step", speeds, "completion_tokens", "1/s")
        peaks = [step["peak_mib"]["update"] for step in measured]
        add("update", peaks, "peak_memory", "MiB")
        anchor = [step["seconds"] for step in steps["avar"][1:]]
        pairs = zip(measured, anchor, strict=True)
        add("step", [step["seconds"] / own for step, own in pairs], "time_over_avar", "x")
