"""The part of a completion that holds its answer."""

import re
from dataclasses import dataclass

from ...rewards.answers import extract_answer, last_boxed

_STATED = re.compile(
    r"\banswer(?:\s{0,3}(?:is|should\s{1,3}be|must\s{1,3}be|:|=))+\s{0,3}"
    r"|\u7b54\u6848(?:\s?(?:\u662f|\u4e3a|\u5e94\u4e3a|:|\uff1a))+\s?",  # Chinese, as in MathVista
    re.IGNORECASE,
)
SHORT = 100  # characters of a line that can be an answer by itself


@dataclass(frozen=True)
class Final:
    """Where a completion ends up."""

    text: str
    explicit: bool
    """It stood between <answer> tags or in a box, and is nothing but the answer."""
    around: str = ""
    """All that stands behind the reasoning, where there are no tags."""


def final_part(completion: str) -> Final | None:
    """Behind the reasoning the last <answer>, else the last ``\\boxed{}``, else all of it.

    Tags inside the reasoning count where nothing stands behind it, and inside one without an end
    where the completion ends on them. None where nothing counts.
    """
    thoughts, _, rest = completion.rpartition("</think>")
    answer = extract_answer(rest)
    if "<think>" in rest:
        return Final(answer, True) if answer and rest.rstrip().endswith("</answer>") else None
    if not rest.strip():
        answer = extract_answer(thoughts)
    if answer is not None:
        return Final(answer, True) if answer else None
    boxed = last_boxed(rest)
    if boxed is not None:
        return Final(boxed, True, rest.strip()) if boxed else None
    return Final(rest.strip(), False, rest.strip()) if rest.strip() else None


def short_answer(final: Final) -> str | None:
    """The answer where no model extracts it: an explicit one, a line that is short enough to be
    nothing else, or what the last "answer is" or "answer:" announces."""
    if final.explicit:
        return final.text
    text = _plain(final.text)
    if len(text) <= SHORT and "\n" not in text and not _STATED.search(text):
        return text
    return announced(final.text)


def announced(text: str) -> str | None:
    """The line behind the last "answer is", "answer:" and the like."""
    text = _plain(text)
    ends = [found.end() for found in _STATED.finditer(text)]
    if not ends:
        return None
    line = text[ends[-1] :].lstrip("* \n").partition("\n")[0]
    return line.strip("* ").rstrip(".\u3002").strip("* ") or None


def _plain(text: str) -> str:
    """Without Markdown's emphasis; a lone asterisk between two numbers multiplies them."""
    return text.replace("**", "").strip("* \n")
