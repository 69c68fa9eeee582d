"""What a resumed run has changed: said, or refused."""

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
    """A run's last checkpoint, as far as data and settings go.

    Args:
        checkpoint: the folder.
        before: the recipe it was written with.
        now: the recipe of this run.
        fingerprint: of its rows, None in a checkpoint that holds none.
        new_data: the user says that a change of the rows is meant.
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

    def units_dealt(self, units: int, rows: Rows, found: Fingerprint) -> tuple[int, str]:
        """Where the order goes on, and what to say of it.

        Args:
            units: that the checkpoint's run had dealt.
            rows: of this run.
            found: their fingerprint.

        Raises:
            ValueError: rows or order have changed and nobody says that it is meant.
        """
        if self.fingerprint is None:
            return units, f"{self.checkpoint} has no fingerprint of its rows: they are not checked"
        if found.as_dict() == self.fingerprint:
            return units, ""
        what = self._what_changed(rows, found)
        if not self.new_data:
            raise ValueError(
                f"the rows must be those of {self.checkpoint} to resume, in the same order; {what}."
                f" Put it back, or add {NEW_DATA}: the steps go on and the order of rows starts"
                " anew."
            )
        return 0, f"new data: {what}; the order of rows starts anew"

    def _what_changed(self, rows: Rows, found: Fingerprint) -> str:
        assert self.fingerprint is not None
        count = self.fingerprint["count"]
        if found.rows == self.fingerprint["rows"]:
            names = ("data.", "train.seed", "model.path")
            settings = {k: v for k, v in self.changed.items() if k.startswith(names)}
            return f"what settles their order has changed ({_listed(settings) or 'their lengths'})"
        if found.count > count and rows_digest(rows, count) == self.fingerprint["rows"]:
            return f"{found.count - count} rows were added to the first {count}"
        if found.count != count:
            return f"there were {count} rows and now there are {found.count}"
        return f"of the {count} rows some have another content or place"

    def report(self, engine: Engine) -> list[str]:
        """Lines that say which settings have changed and what the learning rate does.

        Args:
            engine: with the checkpoint's state and the settings of now.
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
                f" {self.now.optim.schedule} over {self.now.train.steps} steps; with the settings"
                f" as they were it would be {optim.lr * factor:.4g}"
            )
        return lines


def _listed(changed: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())


def on_first_rank(work: Any) -> Any:
    """What rank 0 computes, on all ranks."""
    held = [work() if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]
