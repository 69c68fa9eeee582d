"""MMStar (Chen et al., NeurIPS 2024)."""

from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..benchmark import ByQuestion, Equal, Question, Verdict
from ..prompts import instruction, joined, user_turn
from ..rules.choice import mmstar_letter
from ..rules.final import final_part
from ..source import BenchmarkSource, Record


class MMStar(ByQuestion):
    name, title = "mmstar", "MMStar"
    rule = (
        "the letter in tags, in a box, at the beginning or announced; exact equality, over all"
        " questions"
    )
    official = "only a letter at the beginning counts, that of a word too"
    num_published = 1500
    source = BenchmarkSource(
        hub="Lin-Chen/MMStar",
        splits=("val",),
        files=("mmstar.parquet",),
        columns={
            "index": "int",
            "question": "text",
            "image": "image",
            "answer": "text",
            "category": "text",
            "l2_category": "text",
            "meta_info": "dict",
        },
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        if record["answer"].strip() not in tuple("ABCD"):
            raise bad_row(where, "answer", "be A, B, C or D", f"got {shown(record['answer'])}")
        return Question(
            id=str(record["index"]),
            where=where,
            messages=user_turn(None, joined(record["question"], instruction("choice", style, ""))),
            images=("image",),
            answer=record["answer"].strip(),
            kind="choice",
            options=("A", "B", "C", "D"),
            groups={"category": record["category"], "l2_category": record["l2_category"]},
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        return [self.verdict(q, c) for q, c in zip(questions, completions, strict=True)]

    def verdict(self, question: Question, completion: str) -> Verdict:
        final = final_part(completion)
        letter = None if final is None else mmstar_letter(final)
        return Verdict(letter, letter == question.answer)
