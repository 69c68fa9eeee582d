"""The walks: chains follow the board, the prior comes at its rate, rows are valid."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from avar_fast.lab.__main__ import main
from avar_fast.lab.digits import SPLITS, TILE_PX, digit_part
from avar_fast.lab.walk import CELL_NAMES, WalkConfig, rule_digit
from avar_fast.lab.world import write_rows

LABELS = load_digits().target
NUM_ROWS = 40


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("side", [3, 4])
def test_chains_follow_the_pictures(tmp_path, split, side):
    """Walks every board again, with the labels that scikit-learn gives its pictures."""
    for row in read(write_rows(tmp_path, WalkConfig(side=side), split, NUM_ROWS, seed=3)):
        labels = LABELS[np.ravel(row["meta"]["pictures"])]
        start = re.fullmatch(r"<image>Start at ([A-P])\.", row["messages"][0]["content"])[1]
        chain, cell, seen = "", ord(start) - ord("A"), set()
        for _ in range(6):
            assert cell not in seen
            seen.add(cell)
            chain += f"{chr(ord('A') + cell)}{labels[cell]}"
            cell = (cell + labels[cell] + 1) % side**2
        assert row["reasoning"] == chain
        assert row["answer"] == chain[-1]
        with Image.open(tmp_path / row["images"][0]) as image:
            assert image.size == (side * TILE_PX, side * TILE_PX)
            assert image.mode == "RGB"


def share_of_rule(config, count=300):
    digits = np.array([config.draw("train", 5, index).digits for index in range(count)])
    rule = (9 * digits[:, :-1] + 3) % 10
    return np.mean(digits[:, 1:] == rule)


def test_the_prior_sets_how_often_the_rule_holds():
    # Digits drawn without regard to the rule follow it by chance, one time in ten.
    assert abs(share_of_rule(WalkConfig()) - 0.1) < 0.04
    assert share_of_rule(WalkConfig(prior=1.0)) == 1.0
    assert abs(share_of_rule(WalkConfig(prior=0.9)) - 0.91) < 0.05


def test_no_digit_is_more_frequent_under_the_prior():
    assert sorted(map(rule_digit, range(10))) == list(range(10))
    digits = [WalkConfig(prior=0.97).draw("train", 1, index).digits for index in range(500)]
    for step in (0, 5):
        counts = np.bincount(np.array(digits)[:, step], minlength=10)
        assert 25 < counts.min() <= counts.max() < 80  # four standard errors around 50


def test_one_digit_fills_the_board():
    boards = [WalkConfig(one_digit=True, steps=1).draw("train", 0, i).board for i in range(50)]
    assert all(len(np.unique(board)) == 1 for board in boards)
    assert len({board[0, 0] for board in boards}) == 10
    with pytest.raises(ValueError, match="one_digit must come with steps of 1.*got 6 steps"):
        WalkConfig(one_digit=True)


def test_splits_share_no_handwriting():
    for split, other in (SPLITS, SPLITS[::-1]):
        pictures = np.concatenate(
            [WalkConfig().draw(split, 0, index).pictures.ravel() for index in range(30)]
        )
        assert not set(pictures) & set(np.concatenate(digit_part(other).by_value))


def test_contrast_and_noise_change_the_image_and_nothing_else():
    clear = WalkConfig().draw("test", 2, 0)
    dim = WalkConfig(contrast=0.6).draw("test", 2, 0)
    noisy = WalkConfig(contrast=0.6, noise=0.2).draw("test", 2, 0)
    assert clear.row("x", "y") == dim.row("x", "y") == noisy.row("x", "y")
    gray = [np.asarray(walk.image).astype(float)[..., 0] for walk in (clear, dim, noisy)]
    np.testing.assert_allclose(gray[1], 0.6 * gray[0], atol=1)
    bright = gray[1] > 120  # far from black and white, where noise is cut off
    assert abs(np.std((gray[2] - gray[1])[bright]) / 255 - 0.2) < 0.03


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    config = WalkConfig(noise=0.2, prior=0.5)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_rows(tmp_path / name, config, "train", 3, seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/train.jsonl").read_text() != (tmp_path / "c/train.jsonl").read_text()


def test_the_command_writes_what_the_function_writes(tmp_path, capsys):
    line = ["walks", "--rows", "3", "--split", "train", "--seed", "4", "--prior", "0.9"]
    line += ["--side", "3", "--steps", "4", "--contrast", "0.6", "--noise", "0.1"]
    assert main([*line, "--out", str(tmp_path / "command")]) == 0
    assert "wrote 3 rows" in capsys.readouterr().out
    config = WalkConfig(side=3, steps=4, prior=0.9, contrast=0.6, noise=0.1)
    path = write_rows(tmp_path / "function", config, "train", 3, seed=4)
    assert read(path) == read(tmp_path / "command" / "train.jsonl")


@pytest.mark.parametrize(
    ("field", "value"),
    [("side", 6), ("steps", 17), ("prior", 1.1), ("contrast", 0.0), ("noise", 1.0)],
)
def test_a_wrong_setting_is_named(tmp_path, capsys, field, value):
    with pytest.raises(ValueError, match=rf"^{field} must .*got {value}.* Use "):
        WalkConfig(**{field: value})
    line = ["walks", "--rows", "1", "--split", "test", "--seed", "0", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*line, f"--{field}", str(value)])
    assert f"argument --{field}" in capsys.readouterr().err


def test_every_cell_of_the_largest_board_has_a_name():
    assert len(set(CELL_NAMES)) == len(CELL_NAMES) == 25
