"""What one part has found so far: rows on disk, and how it ended."""

import csv
import json
from pathlib import Path
from typing import Any


class SkipPartError(Exception):
    """A part cannot run on this machine; the message says why."""


class PartReport:
    """Rows of one part, kept in ``NAME.jsonl`` as they are found and in ``NAME.csv`` at the end.

    Attributes:
        dry: whether the part is rehearsed on the kernels of the CPU.
        rows: those found so far, by an earlier start too.
    """

    def __init__(self, folder: Path, name: str, dry: bool) -> None:
        self.folder, self.name, self.dry = folder, name, dry
        self._path = folder / f"{name}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                if number < len(lines) - 1:
                    raise
        # A line that a killed process wrote in part is written anew.
        self.keep(rows)

    def has(self, **case: Any) -> bool:
        """Whether a row of this case was found."""
        return any(case.items() <= row.items() for row in self.rows)

    def add(self, **row: Any) -> None:
        """Keeps a row and prints it."""
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    def keep(self, rows: list[dict[str, Any]]) -> None:
        """Keeps these rows alone, also on disk."""
        self.rows = list(rows)
        self._path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def write_csv(self) -> None:
        """All rows, with the columns of all."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with (self.folder / f"{self.name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
