"""The HTML report of a set of runs: table, curves, VAS per layer and head, attention on images."""

from .page import Entry, write_report

__all__ = ["Entry", "write_report"]
