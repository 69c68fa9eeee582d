"""Measures all rows before training: finds their lengths and problems, and selects usable rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from .encode import Encoder, OverlongError
from .problems import RowError, RowProblem
from .rows import Rows
from .sample import Size
from .stream import own_generator


@dataclass(frozen=True)
class Measured:
    """The measured facts of a row, without its pixels."""

    index: int
    """Index of the row in the data set."""
    schema: str = ""
    """Name of the row's schema; empty if the row cannot be parsed."""
    num_images: int = 0
    size: Size | None = None
    """Token counts; None if the row cannot be used."""
    problem: RowProblem | None = None
    """Why the row cannot be used."""
    overlong: bool = False
    """The problem is the row's length."""
    notes: tuple[str, ...] = ()
    """As ``Row.notes``."""


def measure_rows(
    rows: Rows, encoder: Encoder, indices: Sequence[int], workers: int, decode: bool
) -> Iterator[Measured]:
    """Measures rows in worker processes, in the order of the indices.

    Args:
        rows: the data set.
        encoder: the encoder of the training run.
        indices: indices of the rows to measure.
        workers: number of processes; 0 measures in this process.
        decode: also decode the images, to find damaged ones.
    """
    chunks = DataLoader(
        _MeasuredRows(rows, encoder, decode),
        batch_size=32,
        sampler=indices,
        num_workers=workers,
        collate_fn=_identity,
        generator=own_generator(),
    )
    for chunk in chunks:
        yield from chunk


def measure_row(rows: Rows, encoder: Encoder, index: int, decode: bool) -> Measured:
    """Measures one row. A problem is part of the result, not an exception."""
    schema, num_images = "", 0
    try:
        row = rows[index]
        schema, num_images = row.schema, len(row.images)
        size = encoder.measure(row, decode)
        return Measured(index, schema, num_images, size, notes=row.notes)
    except RowError as error:
        overlong = isinstance(error, OverlongError)
        return Measured(index, schema, num_images, None, error.problem, overlong)


@dataclass(frozen=True)
class Selection:
    """The rows that a run uses, and the numbers of rows it leaves out."""

    usable: list[int]
    """Indices of the rows to use."""
    lengths: list[int]
    """Tokens of each of these rows."""
    skipped: int
    """Number of rows that cannot be used (``data.bad_rows: skip``)."""
    dropped: int
    """Number of overlong rows (``data.overlong: drop``, or ``cut`` if images leave no room)."""
    cut: int
    """Number of rows whose text was cut."""
    first_skipped: RowProblem | None
    """The problem of the first skipped row."""

    def __str__(self) -> str:
        parts = [f"{len(self.usable)} rows to train on"]
        parts += [f"{self.skipped} skipped as unusable"] if self.skipped else []
        parts += [f"{self.dropped} dropped as overlong"] if self.dropped else []
        parts += [f"{self.cut} cut to data.max_length"] if self.cut else []
        first = f" First skipped: {self.first_skipped}" if self.first_skipped else ""
        return f"{', '.join(parts)}.{first}"


def select(measured: Sequence[Measured], bad_rows: str, overlong: str) -> Selection:
    """Selects usable rows by the settings ``data.bad_rows`` and ``data.overlong``.

    Raises:
        RowError: a row has a problem and the recipe does not allow leaving it out.
        ValueError: no row is left.
    """
    ordered = sorted(measured, key=lambda m: m.index)
    skipped = [m for m in ordered if m.problem and not m.overlong]
    dropped = [m for m in ordered if m.overlong]
    if skipped and bad_rows == "error":
        assert skipped[0].problem
        raise RowError(skipped[0].problem)
    if dropped and overlong == "error":
        assert dropped[0].problem
        raise RowError(dropped[0].problem)
    sizes = {m.index: m.size for m in ordered if m.size is not None}
    if not sizes:
        raise ValueError(
            f"the data set must hold a row that can be used; all {len(ordered)} were left out, the"
            f" first because: {ordered[0].problem}"
        )
    return Selection(
        list(sizes),
        [size.tokens for size in sizes.values()],
        len(skipped),
        len(dropped),
        sum(size.num_cut > 0 for size in sizes.values()),
        skipped[0].problem if skipped else None,
    )


class _MeasuredRows(Dataset):
    def __init__(self, rows: Rows, encoder: Encoder, decode: bool) -> None:
        self.rows, self.encoder, self.decode = rows, encoder, decode

    def __getitem__(self, index: int) -> Measured:
        return measure_row(self.rows, self.encoder, index, self.decode)


def _identity(chunk: list[Measured]) -> list[Measured]:
    return chunk
