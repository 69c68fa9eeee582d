"""Benchmarks of a checkpoint: accuracy by deterministic rules, and VAS from the same generation."""

from .result import Result, Summary, read_result, write_json
from .run import Outcome, evaluate, evaluate_rows
from .settings import Settings
from .tasks import BenchmarkTask, RowsTask

__all__ = [
    "BenchmarkTask",
    "Outcome",
    "Result",
    "RowsTask",
    "Settings",
    "Summary",
    "evaluate",
    "evaluate_rows",
    "read_result",
    "write_json",
]
