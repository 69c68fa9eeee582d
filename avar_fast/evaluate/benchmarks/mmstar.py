"""MMStar (Chen et al., NeurIPS 2024), split val."""

import re
from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..benchmark import ByQuestion, Equal, Question
from ..prediction import Verdict
from ..prompts import instruction, joined, user_turn
from ..rules.choice import stated_letter
from ..rules.final import Final, final_part
from ..source import BenchmarkSource, Record

_MMSTAR = re.compile(r"(?:option |the answer is )?\(?([a-z])(?![a-z0-9'])")
FEW_WORDS = 5  # in tags, at most this many words count only as a letter


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


def mmstar_letter(final: Final, letters: str = "ABCD") -> str | None:
    """The letter at the beginning of a completion, by MMStar's rule: "B", "(B)", "Option B", "The
    answer is B". If there is none, a letter that stands alone or is announced.

    Unlike in the official rule, a word that begins with the letter does not count. A few words in
    tags count only as a letter. If a box holds something else, everything around it is read.
    """
    stated = stated_letter(final, letters)
    if final.explicit and not stated and final.around:
        return mmstar_letter(Final(final.around, explicit=False), letters)
    if final.explicit and (stated or len(final.text.split()) <= FEW_WORDS):
        return stated
    match = _MMSTAR.match(final.text.lower().strip().replace("\n", " "))
    first = match[1].upper() if match else ""
    return first if first and first in letters else stated
