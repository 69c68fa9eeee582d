"""What a judge is asked, and how its replies are read. A reply that is not what was asked for is a
JudgeError, never a verdict."""

from ...data.problems import shown
from ..rules.final import final_part, short_answer
from .config import JudgeError

LONGEST = 8000  # characters of a response, from its end, that a judge sees
NONE = "NONE"
_TAGS = "Reply with nothing but {} between <answer> and </answer>."


def extraction(asked: str, form: str, response: str) -> str:
    """Asks for the final answer of a response.

    Args:
        asked: the question in words; may be empty, where the image has it.
        form: of the answer, such as "a whole number".
        response: of the model under evaluation.
    """
    return "\n\n".join(
        [
            "Below is a response to a question about an image. Find the final answer that the"
            f" response gives: {form}. Do not solve the question and do not correct the response."
            f" If it gives no final answer, the answer is {NONE}.",
            *_parts(asked, response),
            _TAGS.format(f"the answer, or {NONE},"),
        ]
    )


def comparison(asked: str, reference: str, given: str) -> str:
    """Asks whether an answer means the same as the reference."""
    return "\n\n".join(
        [
            "Below are the reference answer to a question about an image and the answer that was"
            " given. Decide whether both mean the same; units, notation and rounding do not matter"
            " where the question leaves them open. Do not solve the question.",
            f"Question:\n{asked or 'It is in the image.'}",
            f"Reference answer:\n{reference}",
            f"Given answer:\n{given[-LONGEST:]}",
            _TAGS.format("the word same or the word different"),
        ]
    )


def correctness(asked: str, reference: str, response: str) -> str:
    """Asks whether a response agrees with the reference."""
    return "\n\n".join(
        [
            "Below is a response to a question about an image, and the reference answer. Decide"
            " whether the response agrees with the reference (correct), contradicts it (incorrect),"
            " or leaves the question open (unclear). The reference is right; do not solve the"
            " question.",
            *_parts(asked, response),
            f"Reference answer:\n{reference}",
            _TAGS.format("the word correct, incorrect or unclear"),
        ]
    )


def _parts(asked: str, response: str) -> tuple[str, str]:
    question = f"Question:\n{asked or 'It is in the image.'}"
    return question, f"<response>\n{response[-LONGEST:]}\n</response>"


def read_extracted(reply: str) -> str | None:
    """The answer of a reply to ``extraction``; None for NONE.

    Raises:
        JudgeError: it holds no answer.
    """
    final = final_part(reply)
    answer = None if final is None else short_answer(final)
    if answer is None:
        raise JudgeError(f"the reply holds no answer: {shown(reply)}")
    return None if answer.strip(" .").upper() == NONE else answer


def read_word(reply: str, words: tuple[str, ...]) -> str:
    """Which of the words a reply is.

    Raises:
        JudgeError: none of them.
    """
    final = final_part(reply)
    word = "" if final is None else final.text.strip(" .*\"'").lower()
    if word not in words:
        raise JudgeError(f"the reply must be one of {', '.join(words)}; got {shown(reply)}")
    return word
