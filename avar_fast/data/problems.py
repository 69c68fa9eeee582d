"""Problems of rows, and the errors that carry them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RowProblem:
    """A reason why a row cannot be used. As a string it is a sentence."""

    where: str
    """The file or data set, and the row or line, counted from 1."""
    field: str
    """The field with the problem."""
    expected: str
    """The text after "must"."""
    got: str
    """A clause: "got ..." or "it holds ..."."""
    remedy: str = ""
    """A sentence that says what to do."""
    form: str = "{where}: {field} must {expected}; {got}."
    """Template of the message."""

    def __str__(self) -> str:
        text = self.form.format(
            where=self.where, field=self.field, expected=self.expected, got=self.got
        )
        return printable(f"{text} {self.remedy}".rstrip())


def printable(text: str) -> str:
    """A text that can be encoded as UTF-8: halves of surrogate pairs are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


class RowError(ValueError):
    """A row cannot be used; ``problem`` says why."""

    def __init__(self, problem: RowProblem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


class MissingImageError(RowError, FileNotFoundError):
    """An image file does not exist."""


def bad_row(where: str, field: str, expected: str, got: str, remedy: str = "") -> RowError:
    """Makes the error of a row, for the caller to raise."""
    return RowError(RowProblem(where, field, expected, got, remedy))


def shown(value: object, most: int = 120) -> str:
    """A value for a message, cut if it is very long, such as image bytes."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
