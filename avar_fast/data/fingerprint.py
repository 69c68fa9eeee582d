"""Fingerprints of a run's rows and their order, which a resumed run must match."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from .order import PackOrder, RowOrder
from .rows import Rows

LENGTH = 24  # hexadecimal digits of a digest


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a data set and of the order in which a run uses it."""

    count: int
    """Number of rows."""
    rows: str
    """Digest of the rows' content, in their order. Image files and image columns of parquet files
    are left out: reading them all would take as long as an epoch."""
    order: str
    """Digest of everything that determines the order: usable rows, lengths of packed rows, seed,
    shuffling."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as the manifest of a checkpoint stores them."""
        return asdict(self)


def fingerprint_of(rows: Rows, order: RowOrder | PackOrder) -> Fingerprint:
    """Computes a fingerprint. It reads every row once, but no image files."""
    order_digest = hashlib.sha256(repr(order.settled_by()).encode()).hexdigest()[:LENGTH]
    return Fingerprint(len(rows), rows_digest(rows, len(rows)), order_digest)


def rows_digest(rows: Rows, count: int) -> str:
    """The digest of the first ``count`` rows."""
    digest = hashlib.sha256()
    for content in rows.source.contents(count):
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:LENGTH]
