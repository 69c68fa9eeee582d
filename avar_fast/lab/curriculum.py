"""The base model's rows in the order it learns them: one digit, then chains, then both styles.

Reading a digit comes within a hundred steps where a question shows a single one, and answers at
once are learnt several times sooner by a model that has learnt to look the digits up one by one.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from .world import WorldConfig, write_rows


@dataclass(frozen=True)
class Phase:
    """A stretch of the curriculum."""

    config: WorldConfig
    pool: int
    """Distinct rows."""
    count: int
    """Rows dealt, drawn from the pool with repetition."""


def write_curriculum(out: Path, phases: tuple[Phase, ...], seed: int) -> Path:
    """Writes `out/train.jsonl`, to be read in order (`data.shuffle=false`), and the images it
    names.

    The same arguments write the same bytes.
    """
    lines = []
    for number, phase in enumerate(phases):
        folder = f"phase-{number}"
        pool = write_rows(out / folder, phase.config, "train", phase.pool, seed * 100 + number)
        records = [json.loads(line) for line in pool.read_text().splitlines()]
        for record in records:
            record["images"] = [f"{folder}/{image}" for image in record["images"]]
        order = random.Random(seed * 100 + number)
        dealt: list[dict] = []
        while len(dealt) < phase.count:
            dealt += order.sample(records, len(records))
        lines += [json.dumps(record) + "\n" for record in dealt[: phase.count]]
    path = out / "train.jsonl"
    path.write_text("".join(lines))
    return path
