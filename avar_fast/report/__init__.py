"""The HTML report of a set of runs: table, curves, VAS per layer and head, attention on images."""

from .page import ReportEntry, write_report

__all__ = ["ReportEntry", "write_report"]
