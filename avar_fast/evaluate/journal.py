"""Predictions on disk as they come: one JSON line per chunk, one file per rank.

NAME.parts/settings.json   what the run is, so that another is not mixed into it
NAME.parts/rank-R.jsonl    {"benchmark", "predictions", "vas"} of each chunk, synced
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .answering import Chunk
from .looking import TableSums
from .question import Prediction


class Journal:
    """The folder beside the result while a run is not finished.

    Args:
        out: the result's JSON.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".parts")
        self._file: Any = None

    def claim(self, identity: dict[str, Any]) -> None:
        """Takes the folder for a run of this identity, or goes on with one; a run that ended before
        its first prediction is none.

        Raises:
            ValueError: it belongs to another; the first setting that differs is named.
        """
        held = self.folder / "settings.json"
        if held.is_file() and any(f.stat().st_size for f in self.folder.glob("rank-*.jsonl")):
            before = json.loads(held.read_text())
            require_same(before, identity, f"{self.folder} holds predictions")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = held.with_suffix(".new")
        partial.write_text(json.dumps(identity, indent=1))
        partial.replace(held)

    def read(self) -> tuple[dict[tuple[str, str], Prediction], dict[str, TableSums]]:
        """{(benchmark, id): prediction} and the VAS table of each benchmark, from the files of all
        ranks of all runs so far.

        Of a question that could not be asked at first, the later prediction counts.
        """
        predictions: dict[tuple[str, str], Prediction] = {}
        tables: dict[str, TableSums] = {}
        for file in sorted(self.folder.glob("rank-*.jsonl")):
            for line in file.read_bytes().split(b"\n")[:-1]:  # a torn last line has no end
                chunk = json.loads(line)
                for values in chunk["predictions"]:
                    prediction = Prediction(**values)
                    key = (prediction.benchmark, prediction.id)
                    if key not in predictions or predictions[key].error is not None:
                        predictions[key] = prediction
                tables.setdefault(chunk["benchmark"], TableSums()).add_dict(chunk["vas"])
        return predictions, tables

    def open(self, rank: int) -> None:
        """From now on ``write`` adds to this rank's file; a line that a kill tore is cut off."""
        path = self.folder / f"rank-{rank}.jsonl"
        self._file = path.open("ab+")
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)

    def write(self, benchmark: str, chunk: Chunk) -> None:
        """Returns when the chunk is on the disk."""
        values = [prediction.as_dict() for prediction in chunk.predictions]
        line = {"benchmark": benchmark, "predictions": values, "vas": chunk.table.as_dict()}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def require_same(before: dict[str, Any], identity: dict[str, Any], what: str) -> None:
    """Raises ValueError that names the first setting in which two identities differ."""
    for name in sorted({*before, *identity}):
        was, now = before.get(name), identity.get(name)
        if was != now:
            raise ValueError(
                f"{what} with {name} = {json.dumps(was)}; this run has {json.dumps(now)}. Use the"
                " same settings, another --out, or remove it."
            )
