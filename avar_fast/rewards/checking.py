"""Checking answers for accuracy: the same rules that training rewards by, wherever answers are
judged."""

from collections.abc import Sequence
from types import TracebackType

from .answers import extract_answer, is_correct
from .scoring import Completions, Rewards

CHECKERS = ("accuracy", "exact", "multiple_choice", "numeric")
ROWS_SECONDS = 600.0  # for a batch of answers; one that hangs is cut off long before


class AnswerChecker:
    """Judges completions by one of the built-in rules; its processes start at the first answer.

    Args:
        rule: one of ``CHECKERS``: accuracy (math-verify, in processes that can be killed), exact,
            multiple_choice or numeric.
        decimals: that accuracy compares numbers to which are not exact.

    Attributes:
        problems: of answers that could not be judged and count as wrong.
    """

    def __init__(self, rule: str, decimals: int = 6) -> None:
        if rule not in CHECKERS:
            raise ValueError(f"checker must be one of {', '.join(CHECKERS)}; got {rule!r}.")
        self.rule = rule
        self.problems: list[str] = []
        self._rewards = Rewards((rule,), seconds=ROWS_SECONDS, decimals=decimals)
        self._started = False

    def right(
        self, completions: Sequence[str], answers: Sequence[str], rows: Sequence[str]
    ) -> list[bool]:
        """Whether each completion gives the reference answer.

        Args:
            completions: whose answers stand between <answer> tags (or, for accuracy, in a box).
            answers: references.
            rows: where each comes from, for messages.
        """
        pairs = list(zip(completions, answers, strict=True))
        right = [self.rule == "accuracy" and is_correct(*pair) for pair in pairs]
        # What is equal as text, or holds no answer at all, needs no process.
        left = [i for i, text in enumerate(completions) if not right[i] and self._may_be(text)]
        if not left:
            return right
        if not self._started:
            self._rewards.start(())
            self._started = True
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

    def _may_be(self, completion: str) -> bool:
        return extract_answer(completion) is not None or (
            self.rule == "accuracy" and "\\boxed" in completion
        )

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
