"""MathVerse (Zhang et al., ECCV 2024), testmini, the vision-only problems: the question is in the
image."""

from collections.abc import Sequence

from ...data.problems import bad_row
from ..benchmark import ByQuestion, Dialogue, Equal, Question
from ..judge.prompts import comparison, extraction, read_extracted, read_word
from ..prediction import Verdict
from ..prompts import instruction, joined, user_turn
from ..rules.choice import stated_letter
from ..rules.final import Final, final_part, short_answer
from ..rules.latex import letter_of, same, settled
from ..source import BenchmarkSource, Record

VERSION = "Vision Only"
CHOICE = "multi-choice"
ASKED = "Answer the question in the image."
LETTERS = "ABCDEF"


class MathVerse(ByQuestion):
    name, title = "mathverse", "MathVerse vision-only"
    rule = (
        "the answer in tags, in a box or announced; its letter, or equal as text or by math-verify"
        " to two decimals"
    )
    official = "a language model extracts the answer and another judges it, which is more lenient"
    num_published = 788
    source = BenchmarkSource(
        hub="AI4Math/MathVerse",
        splits=("testmini",),
        configs=("testmini",),
        columns={
            "sample_index": "scalar",
            "problem_index": "scalar",
            "problem_version": "text",
            "question": "text?",
            "image": "image",
            "answer": "text",
            "question_type": "text",
            "metadata": "dict",
            "query_wo": "text",
            "query_cot": "text",
            "question_for_eval": "text",
        },
        keep=lambda record: record["problem_version"] == VERSION,
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        if not record["answer"].strip():
            raise bad_row(where, "answer", "not be empty", "it is")
        kind = "choice" if record["question_type"] == CHOICE else "free"
        if style == "official":
            text = record["query_cot"]
        else:
            text = joined(ASKED, instruction(kind, style, ""))
        metadata = record["metadata"]
        return Question(
            id=str(record["sample_index"]),
            where=where,
            messages=user_turn(None, text),
            images=("image",),
            answer=record["answer"].strip(),
            kind=kind,
            options=tuple(LETTERS) if kind == "choice" else (),
            groups={"question_type": record["question_type"]}
            | {k: str(metadata[k]) for k in ("subject", "subfield") if metadata.get(k)},
            asked=record["question_for_eval"],
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        compared = []
        for question, completion in zip(questions, completions, strict=True):
            compared.append(_compare(question, final_part(completion)))
        return settled(compared, equal)

    def dialogue(self, question: Question, completion: str) -> Dialogue:
        """The judge extracts the answer. It then compares it with the reference, unless the answer
        is a letter or the same text."""
        form = "the letter of an option" if question.kind == "choice" else "a value or expression"
        answer = read_extracted((yield extraction(question.asked, form, completion)))
        if answer is None:
            return Verdict(None, False)
        letter = letter_of(answer, question.letters)
        if letter is not None:
            return Verdict(letter, letter == question.answer)
        if same(answer, question.answer):
            return Verdict(answer, True)
        reply = yield comparison(question.asked, question.answer, answer)
        return Verdict(answer, read_word(reply, ("same", "different")) == "same")


def _compare(question: Question, final: Final | None) -> tuple[Verdict, tuple[str, str] | None]:
    """A verdict, and the pair (answer, reference) that remains to be compared as mathematics; None
    if the verdict is final."""
    answer = None if final is None else short_answer(final)
    if final is None or answer is None:
        return Verdict(None, False), None
    letter = letter_of(answer, question.letters) or stated_letter(final, question.letters)
    if letter is not None:
        return Verdict(letter, letter == question.answer), None
    right = same(answer, question.answer)
    needs_comparison = not right and question.kind == "free"
    return Verdict(answer, right), (answer, question.answer) if needs_comparison else None
