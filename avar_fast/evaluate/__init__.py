"""Benchmarks of a checkpoint: accuracy by deterministic rules, and VAS from the same generation."""

from ..extras import needs

with needs("avar_fast.evaluate"):
    from .result import BenchmarkSummary, Result, read_result, write_json
    from .run import EvaluationOutcome, evaluate, evaluate_rows
    from .settings import Settings
    from .tasks import BenchmarkTask, RowsTask

__all__ = [
    "BenchmarkSummary",
    "BenchmarkTask",
    "EvaluationOutcome",
    "Result",
    "RowsTask",
    "Settings",
    "evaluate",
    "evaluate_rows",
    "read_result",
    "write_json",
]
