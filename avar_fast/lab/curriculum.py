"""Puts the lab's rows in the order in which a model learns them.

The base model reads one digit first, then answers in chains, then in both styles. It learns to read
within a hundred steps if a question shows a single digit. It learns to answer at once several times
sooner if it has learned to look the digits up one by one.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from ..progress import progress
from .world import World, write_rows


@dataclass(frozen=True)
class Phase:
    """A stretch of the curriculum."""

    configs: tuple[World, ...]
    """Kinds of rows, in equal numbers."""
    pool: int
    """Distinct rows of each kind."""
    count: int
    """Rows dealt, drawn from all pools with repetition."""


def write_curriculum(out: Path, phases: tuple[Phase, ...], seed: int, split: str = "train") -> Path:
    """Writes `out/{split}.jsonl`, to be read in order (`data.shuffle=false`), and its images.

    The same arguments write the same bytes.
    """
    lines = []
    total = sum(phase.pool * len(phase.configs) for phase in phases)
    bar = progress(total=total, desc=f"drawing {split} images")
    for number, phase in enumerate(phases):
        records = []
        for kind, config in enumerate(phase.configs):
            folder = f"phase-{number}-{kind}"
            pool_seed = (seed * len(phases) + number) * 10 + kind
            pool = write_rows(out / folder, config, split, phase.pool, pool_seed)
            for line in pool.read_text().splitlines():
                record = json.loads(line)
                record["images"] = [f"{folder}/{image}" for image in record["images"]]
                records.append(record)
            bar.update(phase.pool)
        order = random.Random(seed * len(phases) + number)
        dealt: list[dict] = []
        while len(dealt) < phase.count:
            dealt += order.sample(records, len(records))
        lines += [json.dumps(record) + "\n" for record in dealt[: phase.count]]
    bar.close()
    path = out / f"{split}.jsonl"
    path.write_text("".join(lines))
    return path
