"""Which rows a run deals, in which order: what a resumed run must find as it was."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from .order import PackOrder, RowOrder
from .rows import Rows

LENGTH = 24  # hexadecimal digits of a digest that are kept


@dataclass(frozen=True)
class Fingerprint:
    """Of a data set and of the order in which a run deals it."""

    count: int
    """Rows."""
    rows: str
    """Digest of their content, in their order. What image files hold is not part of it, nor are
    image columns of parquet files: reading them all would take as long as an epoch."""
    order: str
    """Digest of what the order is a function of: usable rows, lengths of packed ones, seed."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fingerprint_of(rows: Rows, order: RowOrder | PackOrder) -> Fingerprint:
    """Reads every row once, but no image file."""
    settled = hashlib.sha256(repr(order.settled_by()).encode()).hexdigest()[:LENGTH]
    return Fingerprint(len(rows), rows_digest(rows, len(rows)), settled)


def rows_digest(rows: Rows, count: int) -> str:
    """Of the first rows."""
    digest = hashlib.sha256()
    for content in rows.source.contents(count):
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:LENGTH]
