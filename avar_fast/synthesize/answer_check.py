"""Whether an answer is the row's, by a rule of the rewards."""

import hashlib
from threading import Lock

from ..rewards import AnswerChecker, Reference


class AnswerCheck:
    """Judges one text at a time, from any thread, and each text once; its processes start at the
    first answer that is not equal as text.

    Attributes:
        problems: of answers that could not be judged and count as wrong.
    """

    def __init__(self, rule: str) -> None:
        self._checker = AnswerChecker(rule)
        self.problems = self._checker.problems
        self._known: dict[bytes, bool] = {}
        self._lock = Lock()

    def __call__(self, text: str, answer: Reference) -> bool:
        """Whether what a model wrote gives the row's answer, or one of several."""
        key = hashlib.sha256(repr((answer, text)).encode()).digest()
        with self._lock:
            if key not in self._known:
                self._known[key] = self._checker.right([text], [answer], [f"{answer!r:.80}"])[0]
            return self._known[key]

    def close(self) -> None:
        self._checker.close()
