"""Chooses the completions of a run that are worth reading."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..config.grpo import VISUAL

Record = dict[str, Any]
PER_KIND = 2
RIGHT = 0.5  # least reward of a right answer, as in grpo.correct_by


@dataclass
class _Top:
    """The records of the highest scores so far, one per row of the data. Of equal scores the later
    one counts: it shows what the model does now."""

    kept: list[tuple[tuple[float, int], Record]] = field(default_factory=list)

    def offer(self, score: float, record: Record) -> None:
        rank = (score, record["step"])
        of_row = next((k for k in self.kept if k[1]["row"] == record["row"]), None)
        if of_row is not None:
            if rank <= of_row[0]:
                return
            self.kept.remove(of_row)
        self.kept.append((rank, record))
        self.kept.sort(key=lambda item: item[0], reverse=True)
        del self.kept[PER_KIND:]

    @property
    def records(self) -> list[Record]:
        return [record for _, record in self.kept]


def choose(records: Iterable[Record], gate: str | None) -> tuple[int, dict[str, list[Record]]]:
    """Reads the completions of a run once.

    Args:
        records: lines of completions.jsonl.
        gate: label of the reward that tells right answers.

    Returns:
        The number of completions, and for each kind the chosen ones, best match first; a kind
        that no completion is of is left out. The visual reward is given to right answers alone,
        so the kinds by it are missing without VARS and without a right answer.
    """
    kinds = {
        "highest reward": _Top(),
        "lowest reward": _Top(),
        "longest": _Top(),
        "right, highest visual reward": _Top(),
        "right, lowest visual reward": _Top(),
    }
    best, worst, longest, looking, not_looking = kinds.values()
    count = 0
    for record in records:
        count += 1
        best.offer(record["reward"], record)
        worst.offer(-record["reward"], record)
        longest.offer(record["tokens"], record)
        visual, right = record["rewards"].get(VISUAL), record["rewards"].get(gate)
        if visual is not None and right is not None and right >= RIGHT:
            looking.offer(visual, record)
            not_looking.offer(-visual, record)
    return count, {name: top.records for name, top in kinds.items() if top.kept}
