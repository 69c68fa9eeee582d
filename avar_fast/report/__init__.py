"""The HTML report of a set of runs: table, curves, VAS per layer and head, attention on images."""

from ..extras import needs

with needs("avar_fast.report"):
    from .page import ReportEntry, write_report

__all__ = ["ReportEntry", "write_report"]
