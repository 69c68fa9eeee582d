"""Walks with hints: right ones are the walk, wrong ones a walk of another board."""

import json

import numpy as np
import pytest

from avar_fast.lab.__main__ import main
from avar_fast.lab.walk import CELL_NAMES, WalkConfig, next_cell
from avar_fast.lab.walk_hints import HintedWalkConfig, hint_digits
from avar_fast.lab.world import DEFAULT_SYSTEM, write_rows

NUM_ROWS = 200
WORLD = {"side": 3, "steps": 4, "noise": 0.2}


def rows_of(path, config, split="train"):
    written = write_rows(path, config, split, NUM_ROWS, seed=1)
    return [json.loads(line) for line in written.read_text().splitlines()]


def test_a_hint_stands_in_the_system_turn_and_changes_nothing_else(tmp_path):
    hinted = rows_of(tmp_path / "a", HintedWalkConfig(**WORLD, right=0.5))
    plain = rows_of(tmp_path / "b", WalkConfig(**WORLD))
    for row, other in zip(hinted, plain, strict=True):
        hint = row["meta"].pop("hint")
        turn = row["messages"].pop(0)
        assert turn == {"role": "system", "content": f"{DEFAULT_SYSTEM} Hint: {hint}."}
        assert row == other
        pictures = [folder / row["images"][0] for folder in (tmp_path / "a", tmp_path / "b")]
        assert pictures[0].read_bytes() == pictures[1].read_bytes()


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_hint_is_a_walk_from_the_same_cell(tmp_path, split):
    for row in rows_of(tmp_path, HintedWalkConfig(**WORLD), split):
        hint = row["meta"]["hint"]
        assert hint[0] == row["reasoning"][0]
        cells = [CELL_NAMES.index(name) for name in hint[::2]]
        digits = hint_digits(hint)
        assert len(set(cells)) == len(cells) == len(digits) == 4
        for cell, digit, after in zip(cells, digits, cells[1:], strict=False):
            assert after == next_cell(cell, digit, 9)


@pytest.mark.parametrize(("right", "low", "high"), [(1.0, 1, 1), (0.7, 0.6, 0.8), (0.0, 0, 0.02)])
def test_hints_are_right_at_their_rate(right, low, high):
    walks = [HintedWalkConfig(**WORLD, right=right).draw("train", 3, i) for i in range(NUM_ROWS)]
    rows = [walk.row("name", "image.png") for walk in walks]
    assert low <= np.mean([row["meta"]["hint"] == row["reasoning"] for row in rows]) <= high


def test_digits_of_wrong_hints_are_right_by_chance():
    walks = [HintedWalkConfig(**WORLD).draw("test", 0, index) for index in range(600)]
    right = np.mean([np.equal(hint_digits(walk.hint), walk.digits) for walk in walks], axis=0)
    assert (np.abs(right - 0.1) < 0.05).all()  # four standard deviations of 600 draws at 0.1


@pytest.mark.parametrize("right", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(right):
    with pytest.raises(ValueError, match="right must be a probability"):
        HintedWalkConfig(right=right)


def test_the_command_writes_them(tmp_path, capsys):
    line = ["walks", "--rows", "3", "--split", "train", "--seed", "1", "--out", str(tmp_path)]
    line += ["--side", "3", "--steps", "4", "--noise", "0.2", "--hint", "0.5"]
    assert main(line) == 0
    written = [json.loads(row) for row in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert written == rows_of(tmp_path / "function", HintedWalkConfig(**WORLD, right=0.5))[:3]
    with pytest.raises(SystemExit):
        main([*line, "--transcript", "0.5"])
    assert "argument --hint must come without --transcript" in capsys.readouterr().err
