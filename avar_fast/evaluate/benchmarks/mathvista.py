"""MathVista (Lu et al., ICLR 2024), split testmini."""

from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..benchmark import ByQuestion, Dialogue, Equal, Question
from ..judge.prompts import extraction, read_extracted
from ..prediction import Verdict
from ..prompts import instruction, joined, lettered, user_turn
from ..rules.choice import bracketed, meant_option, stated_letter
from ..rules.final import Final, final_part, short_answer
from ..rules.number import listed, rounded, whole
from ..source import BenchmarkSource, Record

KINDS = ("integer", "float", "list")
FORMS = {
    "choice": "an option's letter or text",
    "integer": "a whole number",
    "float": "a decimal number",
    "list": "a list such as [1, 2, 3]",
}


class MathVista(ByQuestion):
    name, title = "mathvista", "MathVista"
    rule = (
        "the answer in tags, in a box or announced; a letter or the nearest option, a whole number,"
        " a number rounded to the question's precision, a list; exact equality"
    )
    official = "a language model extracts the answer first, which finds more of them"
    num_published = 1000
    source = BenchmarkSource(
        hub="AI4Math/MathVista",
        splits=("testmini",),
        columns={
            "pid": "text",
            "question": "text",
            "image": "text",
            "decoded_image": "image",
            "choices": "list?",
            "unit": "text?",
            "precision": "number?",
            "answer": "text",
            "question_type": "text",
            "answer_type": "text",
            "metadata": "dict",
            "query": "text",
        },
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        choices = tuple(record["choices"] or ())
        multiple = record["question_type"] == "multi_choice"
        if not record["answer"]:
            remedy = "The split test has none; use testmini."
            raise bad_row(where, "answer", "not be empty", "it is", remedy)
        if multiple and record["answer"] not in choices:
            got = f"got {shown(record['answer'])} and {shown(choices)}"
            raise bad_row(where, "answer", "be one of choices", got)
        kind = "choice" if multiple else record["answer_type"]
        if not multiple and kind not in KINDS:
            got = f"got {shown(record['answer_type'])}"
            raise bad_row(where, "answer_type", f"be one of {', '.join(KINDS)}", got)
        precision = None if record["precision"] is None else int(record["precision"])
        if kind == "float" and precision is None:
            raise bad_row(where, "precision", "be given with a float", "got none")
        if style == "official":
            text = record["query"]
        else:
            unit = f" (Unit: {record['unit']})" if record["unit"] else ""
            text = joined(
                f"{record['question']}{unit}",
                f"Choices:\n{lettered(choices)}" if choices else "",
                instruction(kind, style, "", precision),
            )
        metadata = record["metadata"]
        return Question(
            id=record["pid"],
            where=where,
            messages=user_turn(None, text),
            images=("decoded_image",),
            answer=record["answer"],
            kind=kind,
            options=choices,
            precision=precision,
            groups={k: str(metadata[k]) for k in ("task", "language") if metadata.get(k)},
            asked=record["query"],
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        pairs = zip(questions, completions, strict=True)
        return [self.verdict(q, final_part(completion)) for q, completion in pairs]

    def verdict(self, question: Question, final: Final | None) -> Verdict:
        answer = None if final is None else short_answer(final)
        if final is None or answer is None:
            return Verdict(None, False)
        if question.kind == "choice":
            parsed = chosen_text(answer, final, question)
        elif question.kind == "integer":
            parsed = whole(answer)
        elif question.kind == "float":
            parsed = rounded(answer, question.precision or 0)
        else:
            parsed = listed(answer)
        return Verdict(parsed, parsed == question.answer)

    def dialogue(self, question: Question, completion: str) -> Dialogue:
        """The judge extracts the answer, as in the official rule. This project's rule compares
        it."""
        reply = yield extraction(question.asked, FORMS[question.kind], completion)
        answer = read_extracted(reply)
        return self.verdict(question, None if answer is None else Final(answer, explicit=True))


def chosen_text(answer: str, final: Final, question: Question) -> str | None:
    """The text of the option that an answer means; None if it means none."""
    if answer in question.options:
        return answer
    in_brackets = bracketed(answer)
    letter = stated_letter(final, question.letters)
    if letter is None and len(in_brackets) == 1:
        letter = in_brackets.pop()
    if letter is not None and letter in question.letters:
        return question.options[question.letters.index(letter)]
    return None if len(in_brackets) > 1 else meant_option(answer, question.options)
