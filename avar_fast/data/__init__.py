"""Rows -> samples -> padded batches."""

from .encode import IGNORE, Batch, Encoder, Sample, collate
from .rows import Row, Rows, load_rows, parse_row
from .stream import SampleStream

__all__ = [
    "IGNORE",
    "Batch",
    "Encoder",
    "Row",
    "Rows",
    "Sample",
    "SampleStream",
    "collate",
    "load_rows",
    "parse_row",
]
