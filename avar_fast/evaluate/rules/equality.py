"""Mathematical equality of short answers, for the rules that need it."""

from collections.abc import Sequence

from ...rewards import AnswerChecker

DECIMALS = 2  # MathVision's official rule compares numbers to two decimals


class MathEquality:
    """Tells whether pairs of answers are mathematically equal. Its processes start at the first
    pair.

    Attributes:
        problems: messages about answers that could not be compared. They count as different.
    """

    def __init__(self) -> None:
        self._checker = AnswerChecker("accuracy", DECIMALS)
        self.problems = self._checker.problems

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Compares each pair (answer, reference)."""
        texts = [f"<answer>{answer}</answer>" for answer, _ in pairs]
        return self._checker.right(texts, [reference for _, reference in pairs], texts)

    def close(self) -> None:
        self._checker.close()
