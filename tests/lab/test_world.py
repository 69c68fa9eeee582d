"""The lab's data: rows are valid, answers right, splits disjoint, hints as promised."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from avar_fast.data import load_rows
from avar_fast.lab.__main__ import main
from avar_fast.lab.digits import SPLITS, TILE_PX, digit_part, draw_tile
from avar_fast.lab.world import WorldConfig, make_scene, to_row, write_rows

NUM_ROWS = 60
LABELS = load_digits().target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("lab")
    for split in SPLITS:
        write_rows(out, WorldConfig(rows=2, cols=3), split, NUM_ROWS, seed=7)
    return out


def read(folder, split):
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def addends_of(row):
    """The addends from the labels scikit-learn gives the pictures, not from the world's own."""
    labels = LABELS[np.array(row["meta"]["pictures"])]
    question = row["messages"][0]["content"]
    kind, at = re.search(r"Add (row|column) (\d)\.", question).groups()
    return labels[int(at) - 1] if kind == "row" else labels[:, int(at) - 1]


@pytest.mark.parametrize("split", SPLITS)
def test_rows_follow_the_schema(folder, split):
    rows = read(folder, split)
    assert len(rows) == NUM_ROWS
    assert len({row["id"] for row in rows}) == NUM_ROWS
    for row in rows:
        (turn,) = row["messages"]
        assert turn["role"] == "user"
        assert turn["content"].startswith("<image>")
        assert turn["content"].count("<image>") == 1
        (path,) = row["images"]
        with Image.open(folder / path) as image:
            assert image.mode == "RGB"
            assert image.size == (3 * TILE_PX, 2 * TILE_PX)
        assert isinstance(row["answer"], str)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_the_sums_of_the_named_digits(folder, split):
    for row in read(folder, split):
        assert int(row["answer"]) == addends_of(row).sum()


@pytest.mark.parametrize("split", SPLITS)
def test_the_question_names_the_style_and_only_chains_reason(folder, split):
    rows = read(folder, split)
    assert {row["meta"]["style"] for row in rows} == {"direct", "chain"}
    for row in rows:
        question = row["messages"][0]["content"]
        if question.endswith("Think first."):
            addends = addends_of(row)
            assert row["reasoning"] == " + ".join(map(str, addends)) + f" = {addends.sum()}"
        else:
            assert question.endswith("Answer at once.")
            assert "reasoning" not in row


def test_no_picture_is_in_both_splits(folder):
    seen = {
        split: {p for row in read(folder, split) for p in np.ravel(row["meta"]["pictures"])}
        for split in SPLITS
    }
    allowed = {split: set(np.concatenate(digit_part(split).by_value)) for split in SPLITS}
    assert not allowed["train"] & allowed["test"]
    assert len(allowed["train"]) + len(allowed["test"]) == len(LABELS)
    for split in SPLITS:
        assert seen[split] <= allowed[split]


def test_pictures_show_the_digit_asked_for():
    for split in SPLITS:
        for value, pictures in enumerate(digit_part(split).by_value):
            assert len(pictures) >= 30
            assert (LABELS[pictures] == value).all()


def test_a_plain_tile_is_the_scan_enlarged():
    scan = load_digits().images[5]
    tile = draw_tile(5)
    assert tile.shape == (TILE_PX, TILE_PX)
    shrunk = np.asarray(Image.fromarray(tile[2:26, 2:26]).resize((8, 8), Image.Resampling.BOX))
    assert np.corrcoef(shrunk.ravel(), scan.ravel())[0, 1] > 0.95


def test_varied_tiles_differ_but_stay_like_the_plain_one():
    plain = draw_tile(5).astype(float)
    tiles = [draw_tile(5, np.random.default_rng(seed)).astype(float) for seed in range(30)]
    assert len({tile.tobytes() for tile in tiles}) == 30
    likeness = [np.corrcoef(tile.ravel(), plain.ravel())[0, 1] for tile in tiles]
    assert min(likeness) > 0.3
    assert np.mean(likeness) > 0.6


def test_training_hints_are_right_at_the_rate_asked_for():
    config = WorldConfig(shortcut=0.8)
    samples = [make_scene(config, "train", 3, index) for index in range(400)]
    assert all(sample.question.startswith(f"Hint: {sample.hint}. Add") for sample in samples)
    rate = np.mean([str(sample.hint) == sample.answer for sample in samples])
    assert abs(rate - 0.8) < 0.08  # four standard errors


def test_random_test_hints_do_not_inform():
    config = WorldConfig(shortcut=1.0)
    samples = [make_scene(config, "test", 3, index) for index in range(400)]
    right = np.mean([str(sample.hint) == sample.answer for sample in samples])
    # Two independent sums of two digits agree with probability 0.067.
    assert right < 0.12
    hints, answers = zip(*[(sample.hint, int(sample.answer)) for sample in samples], strict=True)
    assert abs(np.corrcoef(hints, answers)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("config", "split"),
    [
        (WorldConfig(), "train"),
        (WorldConfig(), "test"),
        (WorldConfig(shortcut=0.9, test_hint="absent"), "test"),
    ],
)
def test_hints_are_left_out(config, split):
    for index in range(20):
        sample = make_scene(config, split, 0, index)
        assert sample.hint is None
        assert "Hint" not in sample.question


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_rows(tmp_path / name, WorldConfig(shortcut=0.5), "train", 5, seed=1)
    write_rows(tmp_path / "c", WorldConfig(shortcut=0.5), "train", 5, seed=2)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/train.jsonl").read_text() != (tmp_path / "c/train.jsonl").read_text()


def test_smaller_grids_have_every_size_up_to_the_given_one(tmp_path):
    config = WorldConfig(rows=2, cols=3, smaller=True)
    samples = [make_scene(config, "train", 0, index) for index in range(80)]
    sizes = {sample.digits.shape for sample in samples}
    assert sizes == {(rows, cols) for rows in (1, 2) for cols in (1, 2, 3)}
    line = ["data", "--rows", "9", "--split", "train", "--seed", "0", "--grid", "2x3", "--smaller"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    for sample, row in zip(samples, read(tmp_path, "train"), strict=False):
        assert row["meta"]["digits"] == sample.digits.tolist()


def test_a_longer_data_set_begins_with_the_shorter_one(tmp_path):
    for name, num_rows in (("short", 3), ("long", 6)):
        write_rows(tmp_path / name, WorldConfig(), "train", num_rows, seed=0)
    assert read(tmp_path / "long", "train")[:3] == read(tmp_path / "short", "train")


def test_the_command_writes_what_the_function_writes(tmp_path, capsys):
    line = ["data", "--rows", "4", "--split", "train", "--seed", "5", "--grid", "1x2"]
    line += ["--style", "chain", "--shortcut", "0.5", "--hint-place", "system"]
    assert main([*line, "--contrast", "0.5", "--noise", "0.1", "--out", str(tmp_path)]) == 0
    assert "train.jsonl" in capsys.readouterr().out
    image = {"contrast": 0.5, "noise": 0.1}
    config = WorldConfig(rows=1, cols=2, style="chain", shortcut=0.5, hint_place="system", **image)
    for index, row in enumerate(read(tmp_path, "train")):
        sample = make_scene(config, "train", 5, index)
        assert row == json.loads(json.dumps(to_row(sample, row["id"], row["images"][0])))


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--grid", "2by2", "must be ROWSxCOLS, each from 1 to 8; got '2by2'. Use e.g. 2x2."),
        ("--grid", "0x2", "got '0x2'"),
        ("--shortcut", "1.5", "must be a probability from 0 to 1; got '1.5'"),
        ("--rows", "0", "must be a whole number of at least 1; got '0'"),
        ("--seed", "-1", "must be a whole number of at least 0; got '-1'"),
        ("--split", "dev", "invalid choice: 'dev'"),
        ("--hint-place", "image", "invalid choice: 'image'"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, option, value, expected):
    options = {"--out": str(tmp_path), "--rows": "1", "--split": "test", "--seed": "0"}
    options[option] = value
    with pytest.raises(SystemExit) as stop:
        main(["data", *[f"{name}={text}" for name, text in options.items()]])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"argument {option}: " in message
    assert expected in message


def test_the_command_refuses_a_file_as_folder(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit):
        main(["model", "--seed", "0", "--out", str(tmp_path / "taken")])
    assert "argument --out: must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 0),
        ("cols", 9),
        ("style", "long"),
        ("shortcut", -0.1),
        ("test_hint", "false"),
        ("hint_place", "image"),
        ("contrast", 0.0),
        ("noise", 1.0),
    ],
)
def test_a_wrong_setting_is_named(field, value):
    with pytest.raises(ValueError, match=rf"^{field} must .*got {value!r}.* Use "):
        WorldConfig(**{field: value})


def test_wrong_test_hints_are_never_right():
    config = WorldConfig(shortcut=1.0, test_hint="wrong")
    samples = [make_scene(config, "test", 3, index) for index in range(200)]
    assert all(sample.hint is not None for sample in samples)
    assert not any(str(sample.hint) == sample.answer for sample in samples)


@pytest.mark.parametrize("split", SPLITS)
def test_a_hint_in_the_system_turn_is_the_same_hint_before_the_question(tmp_path, split):
    """The rows differ in the turn of the hint alone, and both are read back as they were."""
    folders = {place: tmp_path / place for place in ("user", "system")}
    for place, folder in folders.items():
        write_rows(folder, WorldConfig(shortcut=0.7, hint_place=place), split, 8, seed=4)
    for in_user, in_system in zip(
        *(read(folder, split) for folder in folders.values()), strict=True
    ):
        hint = f"Hint: {in_user['meta']['hint']}."
        (user,) = in_user.pop("messages")
        system, question = in_system.pop("messages")
        assert in_user == in_system
        assert user["content"] == f"<image>{hint} {question['content'].removeprefix('<image>')}"
        assert system == {"role": "system", "content": f"You are a helpful assistant. {hint}"}
    for folder in folders.values():
        for row in load_rows(str(folder / f"{split}.jsonl")):
            places = {turn["role"] for turn in row.messages if "Hint" in str(turn["content"])}
            assert places == {folder.name}


def test_rows_without_a_hint_have_no_system_turn():
    config = WorldConfig(shortcut=0.9, test_hint="absent", hint_place="system")
    row = to_row(make_scene(config, "test", 0, 0), "name", "path")
    assert [turn["role"] for turn in row["messages"]] == ["user"]


def test_contrast_and_noise_change_the_image_and_nothing_else():
    clear, dim, noisy = (
        make_scene(WorldConfig(**image), "test", 2, 0)
        for image in ({}, {"contrast": 0.6}, {"contrast": 0.6, "noise": 0.2})
    )
    before, after = (np.asarray(sample.image, dtype=float) for sample in (clear, dim))
    assert np.abs(after - 0.6 * before).max() <= 1
    assert np.asarray(noisy.image).std() > after.std()
    for sample in (dim, noisy):
        assert (sample.digits == clear.digits).all()
        assert (sample.question, sample.answer) == (clear.question, clear.answer)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split must be one of .*got 'dev'"):
        make_scene(WorldConfig(), "dev", 0, 0)


def test_test_hints_as_in_training_are_right_at_the_same_rate():
    config = WorldConfig(shortcut=0.8, test_hint="training")
    samples = [make_scene(config, "test", 3, index) for index in range(400)]
    rate = np.mean([str(sample.hint) == sample.answer for sample in samples])
    assert abs(rate - 0.8) < 0.08


def test_open_questions_leave_the_style_to_the_model():
    samples = [make_scene(WorldConfig(open=True), "train", 3, index) for index in range(80)]
    assert all(sample.question == f"Add {sample.line}." for sample in samples)
    assert {(s.style, s.reasoning is None) for s in samples} == {("chain", False), ("direct", True)}
