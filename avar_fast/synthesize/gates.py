"""Quality gates that a candidate must pass. The report counts rejections by gate."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..rewards import Reference, extract_answer
from .journal import StepRecord
from .recipe import GatesConfig
from .step_config import STEPS

Check = Callable[[str, Reference], bool]
"""Tells from (text of a model, reference of the row) whether the text's answer is right."""
_OWN_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
# Marks that the trainer would read as an image, a turn or a part of the target.
_MARKS = re.compile(r"</?(?:think|answer|image|video)>|<\|[^|>]*\|>")


@dataclass(frozen=True)
class Candidate:
    """One sample of a row. It may have failed at an early step."""

    sample: int
    """Number of the sample."""
    reasoning: str | None
    """Rewritten reasoning; None if an earlier step failed."""
    failures: tuple[str, ...]
    """Names of the gates that it failed; empty for a good candidate."""
    anchors_per_1000_chars: float = 0.0
    """Density of visual anchors in the reasoning."""


def body(text: str, step: str) -> str:
    """The part of a step's text that the next step gets. For describe and rewrite, the model's own
    chain of thought is removed."""
    if step == "reason":
        return text
    rest = _OWN_THOUGHT.sub("", text)
    return rest.strip() or text


def split_answer(text: str) -> str:
    """The reasoning before the last <answer>, without <think> tags."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    reasoning = text if start < 0 else text[:start]
    return re.sub(r"</?think>", "", reasoning).strip()


def step_failure(
    entry: StepRecord, answer: Reference, gates: GatesConfig, check: Check
) -> str | None:
    """The gate that a finished step fails, as in ``STEP_GATES`` without the step's name; None if
    the next step may follow."""
    text = body(entry.text or "", entry.step)
    if entry.finish == "refused" or _any(gates.refusals, text):
        return "refused"
    if entry.finish == "length":
        return "cut"
    if entry.step == "describe":
        return None
    if check(text, answer):
        return None
    return "wrong_answer" if extract_answer(text) is not None or "\\boxed" in text else "no_answer"


def open_steps(
    entries: Mapping[str, StepRecord | None], answer: Reference, gates: GatesConfig, check: Check
) -> tuple[str, ...]:
    """The steps that a candidate still needs if all of them succeed."""
    for number, step in enumerate(STEPS):
        entry = entries[step]
        if entry is None:
            return STEPS[number:]
        if step_failure(entry, answer, gates, check):
            break
    return ()


def gate_candidate(
    entries: Mapping[str, StepRecord | None],
    sample: int,
    answer: Reference,
    gates: GatesConfig,
    check: Check,
) -> Candidate | None:
    """Makes a candidate from finished steps and applies the gates to it; None if a step is still
    pending."""
    for step in STEPS:
        entry = entries[step]
        if entry is None:
            return None
        failure = step_failure(entry, answer, gates, check)
        if failure:
            return Candidate(sample, None, (f"{step}: {failure}",))
    last = entries["rewrite"]
    assert last is not None
    reasoning = split_answer(body(last.text or "", "rewrite"))
    failures = tuple(name for name, passed in TEXT_GATES.items() if not passed(reasoning, gates))
    return Candidate(sample, reasoning, failures, anchor_density(reasoning, gates))


def best(candidates: list[Candidate]) -> Candidate:
    """The best candidate: one that passes all gates, else the one that got furthest. Among equals,
    the one with the highest density of anchors."""
    return max(
        candidates,
        key=lambda c: (
            not c.failures,
            c.reasoning is not None,
            -len(c.failures),
            c.anchors_per_1000_chars,
            -c.sample,
        ),
    )


def count_anchors(text: str, gates: GatesConfig) -> int:
    """Number of visual anchors in a text. A passage that several patterns match counts once."""
    if not gates.anchors:
        return 0
    return len(re.findall("|".join(f"(?:{p})" for p in gates.anchors), text, re.IGNORECASE))


def anchor_density(text: str, gates: GatesConfig) -> float:
    """Anchors per 1000 characters."""
    return 1000 * count_anchors(text, gates) / len(text) if text else 0.0


def script_share(text: str, script: str) -> float:
    """Share of the letters that belong to a Unicode script; 1 for a text without letters."""
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 1.0
    return sum(unicodedata.name(char, "").startswith(script) for char in letters) / len(letters)


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


STEP_GATES = tuple(
    f"{step}: {gate}"
    for step in STEPS
    for gate in ("refused", "cut", "no_answer", "wrong_answer")
    if step != "describe" or not gate.endswith("_answer")
)
TEXT_GATES: dict[str, Callable[[str, GatesConfig], bool]] = {
    "too_short": lambda text, gates: len(text) >= gates.min_chars,
    "too_long": lambda text, gates: len(text) <= gates.max_chars,
    "format": lambda text, gates: _MARKS.search(text) is None,
    "few_anchors": lambda text, gates: (
        count_anchors(text, gates) >= gates.min_anchors
        and anchor_density(text, gates) >= gates.min_anchors_per_1000_chars
    ),
    "mentions_description": lambda text, gates: not _any(gates.description_words, text),
    "language": lambda text, gates: (
        gates.script is None or script_share(text, gates.script) >= gates.min_script_share
    ),
}
