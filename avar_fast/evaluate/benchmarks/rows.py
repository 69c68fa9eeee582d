"""The user's own rows, in any schema that the trainer accepts."""

from collections.abc import Sequence

from ...data import Row
from ...data.problems import bad_row
from ...rewards import AnswerChecker, extract_answer
from ..benchmark import ByQuestion, Equal, Question
from ..prediction import Verdict
from ..rules.final import final_part


class OwnRows(ByQuestion):
    """Scores the user's own rows by a reward rule of the trainer.

    Args:
        checker: applies the rule.
    """

    name, title, official, num_published = "rows", "rows", "the same", None

    def __init__(self, checker: AnswerChecker) -> None:
        self._checker = checker
        self.rule = f"reward rule {checker.rule}, as in training"

    def question(self, row: Row, id: str) -> Question:
        if not row.answers:
            remedy = "Add a column answer."
            raise bad_row(row.where, "the answer", "be there, to evaluate with", "none", remedy)
        # A row whose reference reasons asks for a chain of thought; others ask only for an answer.
        style = "chain" if row.target is not None and "<think>" in row.target else "direct"
        answer, *others = row.answers
        groups = {"style": style}
        return Question(
            *(id, row.where, row.messages, (), answer, "free"),
            groups=groups,
            accepted=tuple(others),
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        answers = [[q.answer, *q.accepted] for q in questions]
        rows = [q.where for q in questions]
        right = self._checker.right(completions, answers, rows)
        return [Verdict(self._parsed(c), ok) for c, ok in zip(completions, right, strict=True)]

    def _parsed(self, completion: str) -> str | None:
        if self._checker.rule != "accuracy":
            return extract_answer(completion)
        final = final_part(completion)
        return final.text if final is not None and final.explicit else None
