"""MathVision (Wang et al., NeurIPS 2024), split test."""

from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..benchmark import ByQuestion, Equal, Question
from ..prediction import Verdict
from ..prompts import instruction, joined, lettered, user_turn
from ..rules.final import final_part
from ..rules.latex import letter_of, mathvision_answer, same, settled
from ..source import BenchmarkSource, Record

OFFICIAL = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a'
    ' multiple choice question, only one letter is allowed in the "\\boxed{}".'
)


class MathVision(ByQuestion):
    name, title = "mathvision", "MathVision"
    rule = (
        "the answer in tags, in a box or announced; its letter, the text of the option, or equal by"
        " math-verify to two decimals"
    )
    official = "the same without tags, by another LaTeX parser"
    num_published = 3040
    source = BenchmarkSource(
        hub="MathLLMs/MathVision",
        splits=("test",),
        columns={
            "id": "text",
            "question": "text",
            "options": "list",
            "image": "text",
            "decoded_image": "image",
            "answer": "text",
            "solution": "text?",
            "level": "int",
            "subject": "text",
        },
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        options = tuple(record["options"])
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)]
        if not record["answer"].strip():
            raise bad_row(where, "answer", "not be empty", "it is")
        if options and (len(record["answer"]) != 1 or record["answer"] not in letters):
            got = f"got {shown(record['answer'])}"
            raise bad_row(where, "answer", f"be a letter of the {len(options)} options", got)
        kind = "choice" if options else "free"
        text = joined(
            record["question"],
            f"Options:\n{lettered(options)}" if options else "",
            instruction(kind, style, OFFICIAL),
        )
        return Question(
            id=record["id"],
            where=where,
            messages=user_turn(None, text),
            images=("decoded_image",),
            answer=record["answer"],
            kind=kind,
            options=options,
            groups={"subject": record["subject"], "level": str(record["level"])},
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        compared = []
        for question, completion in zip(questions, completions, strict=True):
            final = final_part(completion)
            compared.append(_compare(question, None if final is None else mathvision_answer(final)))
        return settled(compared, equal)


def _compare(question: Question, answer: str | None) -> tuple[Verdict, tuple[str, str] | None]:
    """A verdict, and the pair (answer, reference) that remains to be compared as mathematics; None
    if the verdict is final."""
    if answer is None:
        return Verdict(None, False), None
    letter = letter_of(answer, question.letters)
    if letter is not None:
        return Verdict(letter, letter == question.answer), None
    reference = question.answer
    if question.options:
        reference = question.options[question.letters.index(question.answer)]
    if same(answer, reference):
        return Verdict(answer, True), None
    return Verdict(answer, False), (answer, reference)
