"""Walks in two styles: rows of both are right, slips come at their rate, styles are read off."""

import json
import re

import numpy as np
import pytest

from avar_fast.data import load_rows
from avar_fast.lab.__main__ import main
from avar_fast.lab.walk import WalkConfig
from avar_fast.lab.walk_styles import StyledWalkConfig, looks_back, read_response
from avar_fast.lab.world import write_rows

COUNT = 400


def rows(**settings):
    config = StyledWalkConfig(side=2, steps=4, **settings)
    return [config.draw("train", 3, index).row("name", "image.png") for index in range(COUNT)]


def walk(board, start, steps):
    """The chain of a walk, by the world's rule: on to cell + digit + 1, around the board."""
    chain, cell = "", "ABCDEFGHI".index(start)
    for _ in range(steps):
        chain += f"{'ABCDEFGHI'[cell]}{board[cell]}"
        cell = (cell + board[cell] + 1) % len(board)
    return chain


def test_both_styles_are_right_without_slips():
    transcribed = 0
    for row in rows():
        board = np.ravel(row["meta"]["board"])
        start = row["messages"][0]["content"][-2]
        chain = walk(board, start, 4)
        assert row["answer"] == chain[-1]
        if "transcript" in row["meta"]:
            transcribed += 1
            written = "".join(f"{cell}{digit}" for cell, digit in zip("ABCD", board, strict=True))
            assert row["reasoning"] == f"{written};{chain}"
        else:
            assert row["reasoning"] == chain
    assert abs(transcribed / COUNT - 0.5) < 0.1  # four standard errors


def test_a_slip_is_one_wrong_digit_that_the_walk_follows():
    slipped = 0
    for row in rows(transcript=1.0, slip=0.3):
        board, written = np.ravel(row["meta"]["board"]), np.ravel(row["meta"]["transcript"])
        start = row["messages"][0]["content"][-2]
        transcript, chain = row["reasoning"].split(";")
        assert transcript == "".join(f"{c}{d}" for c, d in zip("ABCD", written, strict=True))
        assert chain == walk(written, start, 4)
        assert row["answer"] == chain[-1]
        (wrong,) = np.nonzero(board != written)
        assert len(wrong) <= 1
        for cell in wrong:
            slipped += 1
            assert "ABCD"[cell] in chain
    assert abs(slipped / COUNT - 0.3) < 0.1


def test_boards_and_questions_are_those_of_walks_without_styles():
    styled, plain = StyledWalkConfig(noise=0.2, slip=1.0), WalkConfig(noise=0.2)
    for index in range(10):
        one, other = (config.draw("test", 1, index) for config in (styled, plain))
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
        assert one.row("x", "y")["messages"] == other.row("x", "y")["messages"]


def target(reasoning):
    return f"<think>{reasoning}</think><answer>3</answer>"


@pytest.mark.parametrize(
    ("completion", "style"),
    [
        (target("C1A3B7D0"), "look back"),
        (target("A3B7C1D0;C1A3B7D0"), "transcribe"),
        (target("A3B7C1D0;"), None),
        (target(";C1A3"), None),
        (target("A3B7;C1;D0"), None),
        (target("A3B7CC1"), None),
        ("<answer>3</answer>", None),
        ("<think>C1A3B7", None),
    ],
)
def test_the_style_is_read_off_the_response(completion, style):
    response = read_response(completion)
    styles = {True: "transcribe", False: "look back"}
    assert (response and styles[response.transcript is not None]) == style
    assert looks_back(completion) == (style == "look back")


def test_a_walk_follows_its_transcript_or_does_not():
    response = read_response(target("A3B7C1D0;C1A3B7D0"))
    assert response.walk == ("C1", "A3", "B7", "D0")
    assert response.transcript == ("A3", "B7", "C1", "D0")
    assert response.follows_transcript
    assert not read_response(target("A3B7C1D0;C1A4B7D0")).follows_transcript
    assert not read_response(target("C1A3B7D0")).follows_transcript


def test_the_trainers_target_of_a_row_has_its_style(tmp_path):
    path = write_rows(tmp_path, StyledWalkConfig(side=2, steps=4), "train", 20, seed=0)
    styles = {
        (looks_back(row.target), "transcript" in row.columns["meta"])
        for row in load_rows(str(path))
    }
    assert styles == {(True, False), (False, True)}


def test_the_command_writes_what_the_function_writes(tmp_path, capsys):
    line = ["walks", "--rows", "20", "--split", "train", "--seed", "4", "--side", "2"]
    line += ["--steps", "4", "--transcript", "0.5", "--slip", "0.5"]
    assert main([*line, "--out", str(tmp_path / "command")]) == 0
    assert "wrote 20 rows" in capsys.readouterr().out
    config = StyledWalkConfig(side=2, steps=4, transcript=0.5, slip=0.5)
    path = write_rows(tmp_path / "function", config, "train", 20, seed=4)
    text = path.read_text()
    assert text == (tmp_path / "command" / "train.jsonl").read_text()
    styles = {";" in json.loads(row)["reasoning"] for row in text.splitlines()}
    assert styles == {True, False}


@pytest.mark.parametrize("field", ["transcript", "slip"])
def test_a_share_above_one_is_named(tmp_path, capsys, field):
    with pytest.raises(ValueError, match=rf"^{field} must be a probability.*got 1.5"):
        StyledWalkConfig(**{field: 1.5})
    line = ["walks", "--rows", "1", "--split", "test", "--seed", "0", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*line, f"--{field}", "1.5"])
    assert re.search(rf"argument --{field}", capsys.readouterr().err)


def test_a_slip_without_transcripts_is_refused(tmp_path, capsys):
    line = ["walks", "--rows", "1", "--split", "test", "--seed", "0", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*line, "--slip", "0.1"])
    assert "argument --slip must come with --transcript" in capsys.readouterr().err
