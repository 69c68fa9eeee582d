"""Mathematical equality of short answers, for the rules that ask for it."""

from collections.abc import Sequence

from ...rewards import AnswerChecker

DECIMALS = 2  # MathVision's official rule compares numbers to so many


class MathEquality:
    """Whether pairs of answers are equal as mathematics; its processes start at the first pair.

    Attributes:
        problems: of answers that could not be compared and count as different.
    """

    def __init__(self) -> None:
        self._checker = AnswerChecker("accuracy", DECIMALS)
        self.problems = self._checker.problems

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """
        Args:
            pairs: (given, reference).
        """
        texts = [f"<answer>{given}</answer>" for given, _ in pairs]
        return self._checker.right(texts, [reference for _, reference in pairs], texts)

    def close(self) -> None:
        self._checker.close()
