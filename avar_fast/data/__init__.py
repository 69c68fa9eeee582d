"""Data: reads rows, encodes them to samples, and makes padded or packed batches."""

from ..extras import needs

with needs("avar_fast.data"):
    from .batch import NO_SAMPLE, Batch, Collator, collate, prompt_inputs
    from .encode import Encoder, OverlongError
    from .measure import Measured, Selection, measure_rows, select
    from .order import PackOrder, RowOrder
    from .problems import RowError, RowProblem
    from .responses import Forward, ResponseBatch, lay_out, plan_forwards
    from .rows import Row, Rows, load_rows, parse_row
    from .sample import IGNORE, Sample
    from .stream import Feed, SampleStream

__all__ = [
    "IGNORE",
    "NO_SAMPLE",
    "Batch",
    "Collator",
    "Encoder",
    "Feed",
    "Forward",
    "Measured",
    "OverlongError",
    "PackOrder",
    "ResponseBatch",
    "Row",
    "RowError",
    "RowOrder",
    "RowProblem",
    "Rows",
    "Sample",
    "SampleStream",
    "Selection",
    "collate",
    "lay_out",
    "load_rows",
    "measure_rows",
    "parse_row",
    "plan_forwards",
    "prompt_inputs",
    "select",
]
