"""MathVerse (Zhang et al., ECCV 2024), testmini, the problems that are in the image alone."""

from collections.abc import Sequence

from ...data.problems import bad_row
from ..prompts import instruction, joined, user_turn
from ..question import ByQuestion, Equal, Question, Verdict
from ..rules.final import final_part, short_answer
from ..rules.latex import letter_of, same
from ..source import Record, Source

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
    source = Source(
        hub="AI4Math/MathVerse",
        split="testmini",
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
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        verdicts: list[Verdict] = []
        left: list[tuple[int, tuple[str, str]]] = []
        for question, completion in zip(questions, completions, strict=True):
            final = final_part(completion)
            given = None if final is None else short_answer(final)
            if given is None:
                verdicts.append(Verdict(None, False))
                continue
            letter = letter_of(given, question.letters)
            if letter is not None:
                verdicts.append(Verdict(letter, letter == question.answer))
                continue
            right = same(given, question.answer)
            if not right and question.kind == "free":
                left.append((len(verdicts), (given, question.answer)))
            verdicts.append(Verdict(given, right))
        equals = equal([pair for _, pair in left])
        for (i, _), right in zip(left, equals, strict=True):
            verdicts[i] = Verdict(verdicts[i].parsed, right)
        return verdicts
