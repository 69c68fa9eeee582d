"""A pass over all rows that finds their lengths and what is wrong with them, before training."""

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
    """What is known of a row without its pixels."""

    index: int
    schema: str = ""
    num_images: int = 0
    size: Size | None = None
    """None for a row that cannot be used as it is."""
    problem: RowProblem | None = None
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
        encoder: as in training.
        indices: rows to measure.
        workers: processes; 0 for this one.
        decode: read the images whole, so that damaged ones are found.
    """
    chunks = DataLoader(
        _Measuring(rows, encoder, decode),
        batch_size=32,
        sampler=indices,
        num_workers=workers,
        collate_fn=_as_they_are,
        generator=own_generator(),
    )
    for chunk in chunks:
        yield from chunk


def measure_row(rows: Rows, encoder: Encoder, index: int, decode: bool) -> Measured:
    """One row; what is wrong with it is part of the answer."""
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
    """The rows a run deals, and how many it leaves out."""

    usable: list[int]
    lengths: list[int]
    skipped: int
    """Rows that cannot be used (``data.bad_rows: skip``)."""
    dropped: int
    """Overlong rows (``data.overlong: drop``, or ``cut`` where images leave no room)."""
    cut: int
    """Rows whose text was cut."""
    first_skipped: RowProblem | None

    def __str__(self) -> str:
        parts = [f"{len(self.usable)} rows to train on"]
        parts += [f"{self.skipped} skipped as unusable"] if self.skipped else []
        parts += [f"{self.dropped} dropped as overlong"] if self.dropped else []
        parts += [f"{self.cut} cut to data.max_length"] if self.cut else []
        first = f" First skipped: {self.first_skipped}" if self.first_skipped else ""
        return f"{', '.join(parts)}.{first}"


def select(measured: Sequence[Measured], bad_rows: str, overlong: str) -> Selection:
    """Applies ``data.bad_rows`` and ``data.overlong``.

    Raises:
        RowError: a row that the recipe does not allow to leave out; the first one.
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


class _Measuring(Dataset):
    def __init__(self, rows: Rows, encoder: Encoder, decode: bool) -> None:
        self.rows, self.encoder, self.decode = rows, encoder, decode

    def __getitem__(self, index: int) -> Measured:
        return measure_row(self.rows, self.encoder, index, self.decode)


def _as_they_are(chunk: list[Measured]) -> list[Measured]:
    return chunk
