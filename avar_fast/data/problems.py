"""What is wrong with a row: where, which field, what was expected and what came."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RowProblem:
    """One reason why a row cannot be used; a sentence when printed."""

    where: str
    """File or data set and row or line, counted from 1."""
    field: str
    expected: str
    """Goes behind "must"."""
    got: str
    """A clause: "got ..." or "it holds ..."."""
    remedy: str = ""
    form: str = "{where}: {field} must {expected}; {got}."

    def __str__(self) -> str:
        text = self.form.format(
            where=self.where, field=self.field, expected=self.expected, got=self.got
        )
        return printable(f"{text} {self.remedy}".rstrip())


def printable(text: str) -> str:
    """A text that any terminal and file takes: halves of surrogate pairs as they are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


class RowError(ValueError):
    """A row that cannot be used; carries its ``RowProblem``."""

    def __init__(self, problem: RowProblem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


class MissingImageError(RowError, FileNotFoundError):
    """An image file that does not exist."""


def bad_row(where: str, field: str, expected: str, got: str, remedy: str = "") -> RowError:
    """The error of a row; raise it."""
    return RowError(RowProblem(where, field, expected, got, remedy))


def shown(value: object, most: int = 120) -> str:
    """A value for a message, cut where it would flood it (images as bytes, long answers)."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
