"""HTML pages: the report of a study, and the page of training runs (``python -m
avar_fast.report``)."""

from ..extras import needs

with needs("avar_fast.report"):
    from .entry import ReportEntry
    from .page import write_report

__all__ = ["ReportEntry", "write_report"]
