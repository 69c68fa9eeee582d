"""The prompts for the judge, and how its replies are read. A reply in another form raises
JudgeError and is never taken as a verdict."""

from ...data.problems import shown
from ..rules.final import final_part, short_answer
from .config import JudgeError

LONGEST = 8000  # the judge sees this many characters from the end of a response
NONE = "NONE"
_TAGS = "Reply with nothing but {} between <answer> and </answer>."


def extraction(question: str, form: str, response: str) -> str:
    """Prompt that asks for the final answer of a response.

    Args:
        question: text of the question; empty if the question is in the image.
        form: form of the answer, such as "a whole number".
        response: response of the evaluated model.
    """
    return "\n\n".join(
        [
            "Below is a response to a question about an image. Find the final answer that the"
            f" response gives: {form}. Do not solve the question and do not correct the response."
            f" If it gives no final answer, the answer is {NONE}.",
            *_parts(question, response),
            _TAGS.format(f"the answer, or {NONE},"),
        ]
    )


def comparison(question: str, reference: str, answer: str) -> str:
    """Prompt that asks whether an answer means the same as the reference."""
    return "\n\n".join(
        [
            "Below are the reference answer to a question about an image and the answer that was"
            " given. Decide whether both mean the same; units, notation and rounding do not matter"
            " where the question leaves them open. Do not solve the question.",
            f"Question:\n{question or 'It is in the image.'}",
            f"Reference answer:\n{reference}",
            f"Given answer:\n{answer[-LONGEST:]}",
            _TAGS.format("the word same or the word different"),
        ]
    )


def correctness(question: str, reference: str, response: str) -> str:
    """Prompt that asks whether a response agrees with the reference."""
    return "\n\n".join(
        [
            "Below is a response to a question about an image, and the reference answer. Decide"
            " whether the response agrees with the reference (correct), contradicts it (incorrect),"
            " or leaves the question open (unclear). The reference is right; do not solve the"
            " question.",
            *_parts(question, response),
            f"Reference answer:\n{reference}",
            _TAGS.format("the word correct, incorrect or unclear"),
        ]
    )


def _parts(question: str, response: str) -> tuple[str, str]:
    text = f"Question:\n{question or 'It is in the image.'}"
    return text, f"<response>\n{response[-LONGEST:]}\n</response>"


def read_extracted(reply: str) -> str | None:
    """Reads the answer from a reply to ``extraction``; None for NONE.

    Raises:
        JudgeError: the reply holds no answer.
    """
    final = final_part(reply)
    answer = None if final is None else short_answer(final)
    if answer is None:
        raise JudgeError(f"the reply holds no answer: {shown(reply)}")
    return None if answer.strip(" .").upper() == NONE else answer


def read_word(reply: str, words: tuple[str, ...]) -> str:
    """Reads a reply that must be one of ``words``.

    Raises:
        JudgeError: the reply is none of them.
    """
    final = final_part(reply)
    word = "" if final is None else final.text.strip(" .*\"'").lower()
    if word not in words:
        raise JudgeError(f"the reply must be one of {', '.join(words)}; got {shown(reply)}")
    return word
