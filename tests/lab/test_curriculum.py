"""The curriculum file: phases in order, rows from every kind, images that exist."""

import json

from avar_fast.data import load_rows
from avar_fast.lab.curriculum import Phase, write_curriculum
from avar_fast.lab.world import WorldConfig

PHASES = (
    Phase((WorldConfig(rows=1, cols=1),), pool=3, count=7),
    Phase((WorldConfig(style="chain"), WorldConfig(style="direct")), pool=4, count=8),
)


def test_phases_follow_one_another_and_repeat_their_pools(tmp_path):
    path = write_curriculum(tmp_path / "a", PHASES, seed=1)
    rows = load_rows(str(path))
    assert len(rows) == 15
    first = [row.images[0] for row in list(rows)[:7]]
    assert all("phase-0" in str(image) for image in first)
    assert len(set(first)) == 3
    styles = ["<think>" in str(row.target) for row in list(rows)[7:]]
    assert sum(styles) == 4
    assert styles not in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4)


def test_same_seed_same_bytes_and_another_seed_other_rows(tmp_path):
    texts = [
        write_curriculum(tmp_path / str(i), PHASES, seed).read_text()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert texts[0] == texts[1]
    answers = [[json.loads(line)["answer"] for line in text.splitlines()] for text in texts]
    assert answers[0] != answers[2]
