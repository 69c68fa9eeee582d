"""Formats Markdown tables that are also readable in a terminal, and their cells."""

import statistics
from collections.abc import Sequence


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns. The first line is the header, the first column the names."""
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in clean) for i in range(len(clean[0]))]

    def row(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in pairs) + " |"

    rules = ("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths))
    return "\n".join([row(clean[0]), "|" + "|".join(rules) + "|", *map(row, clean[1:])])


def mean_and_deviation(values: Sequence[float], digits: str = ".3f") -> str:
    """A cell with the mean and the sample standard deviation of two values or more."""
    return f"{statistics.mean(values):{digits}} \u00b1 {statistics.stdev(values):{digits}}"
