"""Compares a resumed run with its checkpoint: reports changed settings, rejects changed rows."""

from pathlib import Path
from typing import Any

import torch

from ..config import Recipe
from ..config.changes import changed_settings
from ..data import Rows
from ..data.fingerprint import Fingerprint, rows_digest
from .engine import Engine, lr_factor

NEW_DATA = "--new-data"


class Resumed:
    """The data and settings of the checkpoint that a run resumes from.

    Args:
        checkpoint: folder of the checkpoint.
        before: the recipe that it was written with.
        now: the recipe of this run.
        fingerprint: fingerprint of its rows; None if it has no fingerprint.
        new_data: the user accepts changed rows.
    """

    def __init__(
        self,
        checkpoint: Path,
        before: Recipe,
        now: Recipe,
        fingerprint: dict[str, Any] | None,
        new_data: bool,
    ) -> None:
        self.checkpoint, self.before, self.now = checkpoint, before, now
        self.fingerprint, self.new_data = fingerprint, new_data
        self.changed = changed_settings(before, now)

    def units_dealt(self, units: int, rows: Rows, current: Fingerprint) -> tuple[int, str]:
        """Where in the order of rows the run continues.

        Args:
            units: units that the checkpoint's run had used.
            rows: rows of this run.
            current: fingerprint of these rows.

        Returns:
            The units to skip, and a line for the log, empty if nothing has changed.

        Raises:
            ValueError: the rows or their order have changed and ``new_data`` is false.
        """
        if self.fingerprint is None:
            return units, f"{self.checkpoint} has no fingerprint of its rows: they are not checked"
        if current.as_dict() == self.fingerprint:
            return units, ""
        change = self._describe_change(rows, current)
        if not self.new_data:
            raise ValueError(
                f"the rows must be those of {self.checkpoint} to resume, in the same order;"
                f" {change}. Restore them, or add {NEW_DATA}: the steps continue and the order of"
                " rows starts anew."
            )
        return 0, f"new data: {change}; the order of rows starts anew"

    def _describe_change(self, rows: Rows, current: Fingerprint) -> str:
        assert self.fingerprint is not None
        count = self.fingerprint["count"]
        if current.rows == self.fingerprint["rows"]:
            names = ("data.", "train.seed", "model.path")
            settings = {k: v for k, v in self.changed.items() if k.startswith(names)}
            return f"their order has changed because of {_listed(settings) or 'their lengths'}"
        if current.count > count and rows_digest(rows, count) == self.fingerprint["rows"]:
            return f"{current.count - count} rows were added to the first {count}"
        if current.count != count:
            return f"there were {count} rows and now there are {current.count}"
        return f"some of the {count} rows have other content or another place"

    def report(self, engine: Engine) -> list[str]:
        """Lines for the log: the changed settings and their effect on the learning rate.

        Args:
            engine: has the checkpoint's state and the current settings.
        """
        if not self.changed:
            return []
        lines = [f"settings changed from the next step on: {_listed(self.changed)}"]
        moves = self.now.optim.schedule != "constant" and "train.steps" in self.changed
        if moves or any(key.startswith("optim.") for key in self.changed):
            optim, num_steps = self.before.optim, self.before.num_updates
            factor = lr_factor(engine.num_updates, num_steps, optim.warmup_steps, optim.schedule)
            lines.append(
                f"learning rate: {engine.lr:.4g} at the next step, by the schedule"
                f" {self.now.optim.schedule} over {self.now.train.steps} steps; with the old"
                f" settings it would be {optim.lr * factor:.4g}"
            )
        return lines


def _listed(changed: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())


def on_first_rank(work: Any) -> Any:
    """Calls ``work`` on rank 0 and returns its result on all ranks."""
    result = [work() if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(result, src=0)
    return result[0]
