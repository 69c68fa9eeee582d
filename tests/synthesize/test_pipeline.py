"""The three steps over real HTTP: what is asked, what trains, what a killed run asks again."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from avar_fast.data import load_rows
from avar_fast.data.images import open_image
from avar_fast.synthesize.journal import StepJournal, StepRecord
from avar_fast.synthesize.ledger import Usage

from .server import ANCHORED, DESCRIPTION, REASONING


@pytest.mark.parametrize("stream", [True, False])
def test_rows_come_out_as_the_trainer_takes_them(world, script, stream):
    for step in ("describe", "reason", "rewrite"):
        world.recipe[step]["stream"] = stream
    assert world.run() == 0
    rows = list(load_rows(str(world.out / "rows.jsonl")))
    assert [row.target for row in rows] == [
        f"<think>\n{ANCHORED}\n</think>\n<answer>2</answer>"
    ] * 3
    assert [row.answer for row in rows] == ["2"] * 3
    assert [row.messages[0]["content"][1]["text"] for row in rows] == [
        f"How many circles? ({at})" for at in range(3)
    ]
    for at, row in enumerate(rows):
        assert row.images[0].read_bytes() == (world.folder / f"{at}.png").read_bytes()
    assert len(script.asked()) == 9


def test_each_step_sees_what_it_should_and_nothing_else(world, script):
    world.write_rows(1)
    world.run()
    described, reasoned, rewritten = (
        script.asked(step)[0][1]["messages"][1]["content"]
        for step in ("describe", "reason", "rewrite")
    )
    image, text = described
    sent = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert sent == (world.folder / "0.png").read_bytes()
    assert "How many circles? (0)" in text["text"]
    assert isinstance(reasoned, str)  # no image
    assert DESCRIPTION in reasoned
    assert "How many circles? (0)" in reasoned
    assert REASONING in rewritten
    assert DESCRIPTION not in rewritten


def test_report_and_card_count_calls_tokens_and_cost(world):
    world.run()
    # 9 requests of 100 tokens in at 1 USD and 50 out at 10 USD per million.
    assert world.report["usd"] == pytest.approx(9 * (100 * 1 + 50 * 10) / 1e6)
    assert world.report["steps"]["reason"] == {
        "finished": 3,
        "failed": 0,
        "attempts": 3,
        "input_tokens": 300,
        "output_tokens": 150,
        "tokens_partly_estimated": False,
        "usd": pytest.approx(0.0018),
    }
    assert world.report["rows"] == {"read": 3, "accepted": 3, "rejected": 0, "open": 0}
    card = (world.out / "README.md").read_text()
    for words in ("test-describe", "reason-1", "CC0", "| accepted | 3 |"):
        assert words in card


def test_every_gate_has_a_count_in_report_and_card(world):
    world.run("gates.min_chars=100000", "gates.max_chars=200000")
    gates = world.report["gates"]
    assert gates.pop("candidates") == gates.pop("too_short") == 3
    assert set(gates.values()) == {0}
    assert {"describe: refused", "reason: wrong_answer", "few_anchors", "mentions_description",
            "language", "too_long", "near_duplicate"} <= set(gates)  # fmt: skip
    card = (world.out / "README.md").read_text()
    assert "3 candidates were checked, their answers by the rule `accuracy`" in card
    assert "| too_short | 3 |" in card
    assert "| language | 0 |" in card


def test_a_second_run_asks_nothing_and_new_gates_judge_anew(world, script):
    assert world.run() == 0
    assert world.run("gates.min_chars=100000", "gates.max_chars=200000") == 0
    assert len(script.asked()) == 9
    assert world.report["rejected_by"] == {"too_short": 3}
    assert [row["reasons"] for row in world.lines("rejected.jsonl")] == [["too_short"]] * 3
    assert world.run() == 0
    assert world.report["rows"]["accepted"] == 3
    assert len(script.asked()) == 9


def test_more_samples_ask_only_for_the_new_ones(world, script):
    world.run()
    assert world.run("samples=3") == 0
    assert [len(script.asked(step)) for step in ("describe", "reason", "rewrite")] == [3, 9, 9]


def test_what_is_sent_and_kept_is_what_the_trainer_sees(world, script):
    """The describing model got the file as it lay on disk, turned and transparent."""
    rows = world.write_rows(4)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (56, 28), "red").save(world.folder / "0.jpg", exif=exif)
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(world.folder / "1.png")
    Image.fromarray(np.full((28, 28), 65535, np.uint16)).save(world.folder / "2.png")
    Image.new("RGB", (280, 140), "red").save(world.folder / "3.png")
    rows[0]["images"] = ["0.jpg"]
    world.put(rows)
    world.recipe["data"]["max_pixels"] = 5000
    assert world.run() == 0
    sent = []
    for _, request, *_ in script.asked("describe"):
        (image,) = (p for p in request["messages"][1]["content"] if p["type"] == "image_url")
        data = base64.b64decode(image["image_url"]["url"].partition(",")[2])
        sent.append(Image.open(io.BytesIO(data)).convert("RGB"))
    assert sorted(image.size for image in sent) == [(28, 28), (28, 28), (28, 56), (100, 50)]
    assert all(image.getpixel((0, 0)) == (255, 255, 255) for image in sent if image.width == 28
               and image.height == 28)  # fmt: skip
    kept = load_rows(str(world.out / "rows.jsonl"))
    sizes = [open_image(row.images[0], row.where).size for row in kept]
    assert sorted(sizes) == sorted(image.size for image in sent)


def test_the_best_of_several_samples_is_kept(world, script):
    def answer(step, request):
        if step == "reason":  # the first sample is wrong
            return f"{REASONING}\n<answer>{2 if request['seed'] > 7 else 3}</answer>"
        if step == "rewrite" and request["seed"] == 8:
            return f"{ANCHORED} As described, two.\n<answer>2</answer>"
        return f"{ANCHORED}\n<answer>2</answer>"

    script.answer = answer
    for step in ("reason", "rewrite"):
        world.recipe[step]["seed"] = 7
    world.write_rows(1)
    assert world.run("samples=3") == 0
    assert world.lines("rows.jsonl")[0]["meta"]["sample"] == 2
    gates = world.report["gates"]
    assert {name: count for name, count in gates.items() if count} == {
        "candidates": 3,
        "reason: wrong_answer": 1,
        "mentions_description": 1,
    }
    assert len(script.asked("rewrite")) == 2  # a wrong answer is not worth rewriting


def test_a_run_that_was_killed_asks_nothing_twice(world, script):
    """kill -9 in the middle, then the same command."""
    world.write_rows(12)
    for step in ("describe", "reason", "rewrite"):
        world.recipe[step]["concurrency"] = 2
    script.delay_s = 0.1
    world.folder.joinpath("recipe.yaml").write_text(json.dumps(world.recipe))
    command = [sys.executable, "-m", "avar_fast.synthesize", str(world.folder / "recipe.yaml")]
    journal = world.out / "steps.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not journal.is_file() or journal.read_bytes().count(b"\n") < 8:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    kept = journal.read_bytes().count(b"\n")
    assert 8 <= kept < 36
    with journal.open("ab") as file:  # a line that was being written
        file.write(b'{"key": "abc", "step": "rea')
    script.delay_s = 0.0
    before = len(script.asked())
    assert world.run() == 0
    assert len(script.asked()) - before == 36 - kept
    assert world.report["rows"]["accepted"] == 12


def test_a_second_process_leaves_the_folder_as_it_is(world, capsys):
    """It once wrote its recipe over that of the run it met."""
    world.run()
    before = {path: path.read_bytes() for path in world.out.rglob("*") if path.is_file()}
    held = StepJournal(world.out)
    assert world.run("gates.min_chars=100") == 1
    held.close()
    assert "one run at a time" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in world.out.rglob("*") if path.is_file()}


def test_a_run_that_was_killed_at_its_start_left_a_folder_to_go_on_in(world):
    world.out.mkdir()
    (world.out / "steps.jsonl").touch()
    (world.out / "identity.json.partial").write_text('{"data.pa')
    assert world.run() == 0
    assert not list(world.out.glob("*.partial"))


def test_the_journal_refuses_a_broken_line_in_the_middle_and_a_second_process(world):
    world.run()
    held = StepJournal(world.out)
    with pytest.raises(BlockingIOError, match="one run at a time"):
        StepJournal(world.out)
    held.close()
    lines = (world.out / "steps.jsonl").read_text().splitlines()
    (world.out / "steps.jsonl").write_text("\n".join([lines[0], "{", *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"steps.jsonl line 2 must be a finished step"):
        StepJournal(world.out)


def test_no_more_requests_at_once_than_allowed_and_no_faster(world, script):
    world.write_rows(8)
    script.delay_s = 0.05
    for step in ("describe", "reason", "rewrite"):
        world.recipe[step]["concurrency"] = 1
    world.recipe["describe"]["requests_per_minute"] = 300  # one in 0.2 s, so 1.4 s in all
    world.run()
    assert script.most_at_once <= 3
    times = [request[3] for request in script.asked("describe")]
    assert times[-1] - times[0] >= 0.9  # the first may arrive late; without a limit it is 0.4 s


def test_dry_run_asks_nothing_and_shrinks_with_what_is_on_disk(world, script, capsys):
    assert world.run("--dry-run", "samples=2") == 0
    said = capsys.readouterr().out
    assert not world.out.exists()
    assert not script.asked()
    assert [line.split()[:2] for line in said.splitlines()[4:]] == [
        ["describe", "3"],
        ["reason", "6"],
        ["rewrite", "6"],
        ["sum", "15"],
    ]
    # At most: 500 tokens an answer; steps after the first are sent those of the one before.
    line = next(line for line in said.splitlines() if line.startswith("describe"))
    assert float(line.split()[-1]) >= 3 * 500 * 10 / 1e6
    world.run()
    capsys.readouterr()
    world.run("--dry-run")
    said = capsys.readouterr().out
    assert "9 finished steps" in said
    assert next(x for x in said.splitlines() if x.startswith("sum")).split()[1] == "0"


def test_a_dry_run_counts_no_step_after_one_that_failed(world, script, capsys):
    """It once counted the rewriting of wrong answers, which no run asks for."""
    script.answer = lambda step, request: "<answer>3</answer>"
    assert world.run() == 0
    assert world.report["rejected_by"] == {"reason: wrong_answer": 3}
    capsys.readouterr()
    world.run("--dry-run")
    said = capsys.readouterr().out
    assert next(x for x in said.splitlines() if x.startswith("sum")).split()[1] == "0"


def test_a_journal_gives_back_what_was_added_and_keeps_failures_apart(tmp_path):
    first = StepRecord(
        "a", "reason", 1, "two\nlines \u4f60", "stop", "m", "v", Usage(1, 2), 0.1, 1, 0.5
    )
    failed = replace(first, sample=2, text=None, finish="HTTP 500", problems=("x", "HTTP 500"))
    journal = StepJournal(tmp_path)
    journal.add(first)
    journal.add(failed)
    assert journal.finished("a", "reason", 1) == first
    assert journal.finished("a", "reason", 2) is None
    journal.close()
    reopened = StepJournal(tmp_path)
    assert reopened.finished("a", "reason", 1) == first
    assert reopened.entries == [replace(first, text=""), failed]
    again = replace(failed, text="now", problems=())
    reopened.add(again)
    assert reopened.finished("a", "reason", 2) == again
    reopened.close()
