"""Checking answers for accuracy: the same rules that training rewards by, wherever answers are
judged."""

from collections.abc import Sequence
from types import TracebackType

from .answers import Reference, given_answer, is_correct
from .scoring import Completions, Rewards

CHECKERS = ("accuracy", "exact", "multiple_choice", "numeric")
ROWS_SECONDS = 600.0  # for a batch of answers; one that hangs is cut off long before


class AnswerChecker:
    """Judges completions by one of the built-in rules; its processes start at the first answer that
    needs one.

    Args:
        rule: one of ``CHECKERS``: accuracy (docs/answers.md; mathematics in processes that can be
            killed), exact, multiple_choice or numeric.
        decimals: where given, accuracy takes numbers and mathematics to be equal where math-verify
            does to so many decimals, as a benchmark's official rule may have it.

    Attributes:
        problems: of answers that could not be judged and count as wrong.
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
        """Whether each completion gives a reference answer.

        Args:
            completions: whose answers stand between <answer> tags (or, for accuracy, in a box).
            answers: references, each one text or several of which any is right.
            rows: where each comes from, for messages.
        """
        pairs = list(zip(completions, answers, strict=True))
        right = [self.rule == "accuracy" and is_correct(*pair) for pair in pairs]
        left = [i for i, ok in enumerate(right) if not ok and given_answer(completions[i])]
        asked = Completions(
            prompts=[[]] * len(left),
            texts=[completions[i] for i in left],
            completion_ids=[[]] * len(left),
            columns={"answer": [answers[i] for i in left]},
            rows=[rows[i] for i in left],
        )
        scored = self._rewards.score(asked)
        self.problems += [str(problem) for problem in scored.problems]
        for i, value in zip(left, scored.values[self.rule], strict=True):
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
