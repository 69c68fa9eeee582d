"""Quality gates: what a candidate must pass, each with a name that the report counts by."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..rewards import Reference, extract_answer
from .journal import StepRecord
from .recipe import GatesConfig
from .step_config import STEPS

Check = Callable[[str, Reference], bool]
"""(what a model wrote, the row's answer or answers) -> whether its answer is right."""
_OWN_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
# Marks that a trainer would take for an image, a turn or a part of the target.
_MARKS = re.compile(r"</?(?:think|answer|image|video)>|<\|[^|>]*\|>")


@dataclass(frozen=True)
class Candidate:
    """One sample of a row, as far as it came."""

    sample: int
    reasoning: str | None
    """Rewritten; None where a step before it did not yield one."""
    failures: tuple[str, ...]
    """Gates that were not passed; empty: it is good."""
    anchors_per_1000_chars: float = 0.0


def body(text: str, step: str) -> str:
    """What a step hands on: its text without the thoughts that a model had before it spoke."""
    if step == "reason":
        return text
    rest = _OWN_THOUGHT.sub("", text)
    return rest.strip() or text


def split_answer(text: str) -> str:
    """The reasoning in front of the last <answer>, without <think> tags around it."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    reasoning = text if start < 0 else text[:start]
    return re.sub(r"</?think>", "", reasoning).strip()


def step_failure(
    entry: StepRecord, answer: Reference, gates: GatesConfig, check: Check
) -> str | None:
    """Which of ``STEP_GATES`` makes a finished step not worth the next one; None where it is."""
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
    """What a candidate still takes, if all goes well from here."""
    for place, step in enumerate(STEPS):
        entry = entries[step]
        if entry is None:
            return STEPS[place:]
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
    """The candidate that finished steps make; None where a step is still to be asked."""
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
    """The candidate that passes, or else came furthest; with the most anchors among equals."""
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
    """Visual anchors in a text; what several patterns match counts once."""
    if not gates.anchors:
        return 0
    return len(re.findall("|".join(f"(?:{p})" for p in gates.anchors), text, re.IGNORECASE))


def anchor_density(text: str, gates: GatesConfig) -> float:
    """Anchors per 1000 characters."""
    return 1000 * count_anchors(text, gates) / len(text) if text else 0.0


def script_share(text: str, script: str) -> float:
    """Share of the letters that are in a Unicode script; 1 for a text without letters."""
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
