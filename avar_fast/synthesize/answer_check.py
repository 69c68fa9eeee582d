"""Checks answers against a row's reference by a reward rule."""

import hashlib
from threading import Lock

from ..rewards import AnswerChecker, Reference


class CachedAnswerChecker:
    """Checks one text at a time, from any thread. Results are cached. Its processes start at the
    first answer that differs from the reference as text.

    Args:
        rule: name of the reward rule.

    Attributes:
        problems: messages about answers that could not be compared. They count as wrong.
    """

    def __init__(self, rule: str) -> None:
        self._checker = AnswerChecker(rule)
        self.problems = self._checker.problems
        self._known: dict[bytes, bool] = {}
        self._lock = Lock()

    def __call__(self, text: str, answer: Reference) -> bool:
        """Whether the text of a model gives the row's answer, or one of its answers."""
        key = hashlib.sha256(repr((answer, text)).encode()).digest()
        with self._lock:
            if key not in self._known:
                self._known[key] = self._checker.right([text], [answer], [f"{answer!r:.80}"])[0]
            return self._known[key]

    def close(self) -> None:
        self._checker.close()
