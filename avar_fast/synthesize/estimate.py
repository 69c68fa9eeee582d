"""Estimates the requests, tokens and cost of a run before it starts."""

from collections import Counter
from collections.abc import Mapping
from statistics import mean

from .gates import Check, open_steps
from .journal import StepRecord
from .ledger import Usage, image_tokens, text_tokens
from .prompts import Prompt
from .recipe import SynthesisRecipe
from .step_config import STEPS, sample_of
from .tasks import ReadRows, SynthesisTask

# Tokens of a typical answer, used until the folder holds answers to average.
TYPICAL_OUTPUT_TOKENS = {"describe": 800, "reason": 2000, "rewrite": 2000}


def estimate(
    recipe: SynthesisRecipe,
    read: ReadRows,
    prompts: Mapping[str, Prompt],
    entries: list[StepRecord],
    check: Check,
) -> str:
    """Formats a table of the calls, tokens and cost per step that remain.

    The expected numbers assume that answers are as long as the average on disk, or as a typical
    answer. The upper numbers assume that every answer has max_tokens. A row whose finished steps
    pass their gates is assumed to reach every step. Retries are not counted.
    """
    finished = {(e.key, e.step, e.sample): e for e in entries if e.text is not None}
    open_calls = {task.key: _calls(recipe, task, finished, check) for task in read.tasks}
    expected_lengths = {name: _length(recipe, name, entries) for name in STEPS}
    longest = {name: recipe.step(name).max_tokens for name in STEPS}
    spent = sum(entry.cost for entry in entries)
    lines = [
        f"rows      {len(read.tasks)} usable of {len(read.rows)} ({len(read.problems)} bad,"
        f" {len(read.duplicates)} repeated)",
        f"on disk   {len(finished)} finished steps, {spent:.4f} USD spent",
        "",
        f"{'step':<10}{'calls':>9}{'tokens in':>14}{'tokens out':>14}{'USD':>12}"
        f"{'USD at most':>14}",
    ]
    sums = [0, 0, 0, 0.0, 0.0]
    for name in STEPS:
        calls = {key: counts[name] for key, counts in open_calls.items()}
        expected = _usage(name, read.tasks, calls, prompts[name], expected_lengths)
        most = _usage(name, read.tasks, calls, prompts[name], longest)
        row = [sum(calls.values()), expected.input, expected.output]
        row += [usage.cost(recipe.step(name)) for usage in (expected, most)]
        sums = [total + value for total, value in zip(sums, row, strict=True)]
        lines.append(_line(name, row))
    lines.append(_line("sum", sums))
    return "\n".join(lines)


def _calls(
    recipe: SynthesisRecipe,
    task: SynthesisTask,
    finished: Mapping[tuple[str, str, int], StepRecord],
    check: Check,
) -> Counter[str]:
    """Number of requests of each step that remain for a row."""
    calls: Counter[str] = Counter()
    for sample in range(recipe.samples):
        entries = {name: finished.get((task.key, name, sample_of(name, sample))) for name in STEPS}
        calls.update(open_steps(entries, task.reference, recipe.gates, check))
    calls["describe"] = min(calls["describe"], 1)
    return calls


def _line(name: str, row: list[float]) -> str:
    calls, sent, received, usd, most_usd = row
    return f"{name:<10}{calls:>9}{sent:>14}{received:>14}{usd:>12.4f}{most_usd:>14.4f}"


def _usage(
    name: str,
    tasks: list[SynthesisTask],
    calls: Mapping[str, int],
    prompt: Prompt,
    answer_tokens: Mapping[str, int],
) -> Usage:
    """Tokens of the remaining calls of a step.

    Args:
        name: the step.
        tasks: all rows.
        calls: {key of a row: remaining calls}.
        prompt: prompt of the step.
        answer_tokens: {step: tokens of an answer}.
    """
    # A request contains the answer of the previous step.
    number = STEPS.index(name)
    previous = answer_tokens[STEPS[number - 1]] if number else 0
    sent = 0
    for task in tasks:
        tokens = text_tokens(prompt.system + prompt.user + task.question) + previous
        if name == "describe":
            tokens += sum(image_tokens(size) for size in task.image_sizes)
        sent += calls[task.key] * tokens
    return Usage(sent, sum(calls.values()) * answer_tokens[name])


def _length(recipe: SynthesisRecipe, name: str, entries: list[StepRecord]) -> int:
    """Expected number of tokens in an answer of a step."""
    known = [e.usage.output for e in entries if e.step == name and e.text is not None]
    expected = round(mean(known)) if known else TYPICAL_OUTPUT_TOKENS[name]
    return min(expected, recipe.step(name).max_tokens)
