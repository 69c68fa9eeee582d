"""Entries of a study's page."""

from avar_fast.report import ReportEntry


def entry(name, accuracy, train_seconds, log, maps):
    table = [[0.1, 0.2], [0.3, 0.4]]
    return ReportEntry(
        name,
        accuracy=accuracy,
        accuracy_by_style={"chain": 0.9, "direct": accuracy},
        vas={"ratio": 12.5, "log_ratio": 2.25, "share": 0.75},
        vas_layers=[1, 3],
        vas_table={"ratio": table, "log_ratio": table, "share": table},
        eval_seconds=3.0,
        train_seconds=train_seconds,
        log=log,
        maps=maps,
    )
