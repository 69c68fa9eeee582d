"""Finds the part of a completion that holds its answer."""

import re
from dataclasses import dataclass

from ...rewards.answers import extract_answer, last_boxed

_STATED = re.compile(
    r"\banswer(?:\s{0,3}(?:is|should\s{1,3}be|must\s{1,3}be|:|=))+\s{0,3}"
    r"|\u7b54\u6848(?:\s?(?:\u662f|\u4e3a|\u5e94\u4e3a|:|\uff1a))+\s?",  # Chinese, as in MathVista
    re.IGNORECASE,
)
SHORT = 100  # a single line of at most this many characters can be an answer


@dataclass(frozen=True)
class Final:
    """The final part of a completion, which holds its answer."""

    text: str
    explicit: bool
    """Whether the text stood between <answer> tags or in a box. It is then only the answer."""
    around: str = ""
    """Everything after the reasoning; empty if the answer stood between tags."""


def final_part(completion: str) -> Final | None:
    """Finds the final part of a completion: after the reasoning, the last <answer>, else the last
    ``\\boxed{}``, else the whole rest.

    <answer> tags inside the reasoning count in two cases: nothing follows the reasoning, or the
    reasoning is not closed and the completion ends with the tags. None if nothing counts.
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
    """Extracts the answer without a language model: an explicit answer, a text that is one short
    line, or the text after the last "answer is" or "answer:". None if there is none of these."""
    if final.explicit:
        return final.text
    text = _plain(final.text)
    if len(text) <= SHORT and "\n" not in text and not _STATED.search(text):
        return text
    return announced(final.text)


def announced(text: str) -> str | None:
    """The rest of the line after the last "answer is", "answer:" or similar words; None if there
    are none."""
    text = _plain(text)
    ends = [match.end() for match in _STATED.finditer(text)]
    if not ends:
        return None
    line = text[ends[-1] :].lstrip("* \n").partition("\n")[0]
    return line.strip("* ").rstrip(".\u3002").strip("* ") or None


def _plain(text: str) -> str:
    """The text without Markdown emphasis. A single asterisk inside the text stays, because it may
    be a multiplication sign."""
    return text.replace("**", "").strip("* \n")
