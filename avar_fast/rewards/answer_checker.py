"""Checks answers with the same rules that training rewards."""

from collections.abc import Sequence
from types import TracebackType

from .answers import Reference, given_answer, is_correct
from .completions import Completions
from .scoring import Rewards

CHECKERS = ("accuracy", "exact", "multiple_choice", "numeric")
ROWS_SECONDS = 600.0  # for a batch of answers; a single answer that hangs is stopped much earlier


class AnswerChecker:
    """Checks completions with one of the built-in rules. Its processes start when the first answer
    needs one.

    Args:
        rule: one of ``CHECKERS``: accuracy (docs/answers.md; mathematics in processes that can be
            killed), exact, multiple_choice or numeric.
        decimals: if set, accuracy compares numbers and mathematics with math-verify, to this many
            decimals, as the official rules of some benchmarks do.

    Attributes:
        problems: messages about answers that could not be checked and count as wrong.

    Raises:
        ValueError: the rule is not one of ``CHECKERS``.
    """

    def __init__(self, rule: str, decimals: int | None = None) -> None:
        if rule not in CHECKERS:
            raise ValueError(f"checker must be one of {', '.join(CHECKERS)}; got {rule!r}.")
        self.rule = rule
        self.problems: list[str] = []
        self._rewards = Rewards((rule,), seconds=ROWS_SECONDS, decimals=decimals)

    def right(
        self, completions: Sequence[str], answers: Sequence[Reference], rows: Sequence[str]
    ) -> list[bool]:
        """Whether each completion gives a right answer.

        Args:
            completions: texts with an answer between <answer> tags (or, for accuracy, in a box).
            answers: the reference of each completion: one text, or several that are all right.
            rows: place of each completion's row, for messages.
        """
        pairs = list(zip(completions, answers, strict=True))
        right = [self.rule == "accuracy" and is_correct(*pair) for pair in pairs]
        open_indices = [i for i, ok in enumerate(right) if not ok and given_answer(completions[i])]
        open_completions = Completions(
            prompts=[[]] * len(open_indices),
            texts=[completions[i] for i in open_indices],
            completion_ids=[[]] * len(open_indices),
            columns={"answer": [answers[i] for i in open_indices]},
            rows=[rows[i] for i in open_indices],
        )
        scored = self._rewards.score(open_completions)
        self.problems += [str(problem) for problem in scored.problems]
        for i, value in zip(open_indices, scored.values[self.rule], strict=True):
            right[i] = value == 1.0
        return right

    def close(self) -> None:
        self._rewards.close()

    def __enter__(self) -> "AnswerChecker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
