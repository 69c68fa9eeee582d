"""Entries of a study's page."""

from avar_fast.report import ReportEntry

TABLE = [["model", "score"], ["base & <start>", "0.500"], ["AGTO", "0.625"]]


def entry(name, log):
    table = [[0.1, 0.2], [0.3, 0.4]]
    return ReportEntry(name, [1, 3], {"log_ratio": table, "share": table}, log)
