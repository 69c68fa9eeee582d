"""Sums over the completions of a step, for the log's means."""

from ..run import Run


class Tally:
    """Totals and counts by name. They belong to this rank; ``means`` adds up all ranks."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, name: str, total: float, count: float) -> None:
        """Adds a sum over ``count`` values to a name."""
        sums = self.sums.setdefault(name, [0.0, 0.0])
        sums[0] += total
        sums[1] += count

    def means(self, run: Run) -> dict[str, float | None]:
        """The mean of each name over all ranks; None if its count is 0."""
        flat = run.engine.sum_over_ranks(*(x for pair in self.sums.values() for x in pair))
        pairs = zip(self.sums, flat[::2], flat[1::2], strict=True)
        return {name: total / count if count else None for name, total, count in pairs}
