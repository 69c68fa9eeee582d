"""Rows, recipes, prompts and folders that cannot be used: said before anything is asked."""

import json
import re
import sys

import pytest
from PIL import Image

from avar_fast.config import dump_recipe, read_recipe
from avar_fast.synthesize.recipe import SynthesisRecipe

from .server import ANCHORED

GOOD = {
    "messages": [{"role": "user", "content": "<image>How many circles?"}],
    "images": ["0.png"],
    "answer": "2",
}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (GOOD | {"images": ["broken.png"]}, "image .*broken.png cannot be read"),
        (GOOD | {"images": ["cut.png"]}, "image .*cut.png cannot be read"),
        (GOOD | {"images": ["absent.png"]}, "absent.png does not exist"),
        (GOOD | {"answer": None}, "answer must be there to check the reasoning against"),
        (GOOD | {"answer": " "}, "answer must not be empty"),
        (
            {"messages": [{"role": "user", "content": "How many?"}], "answer": "2"},
            "images must hold an image to look at",
        ),
        (
            GOOD
            | {
                "messages": [
                    {"role": "user", "content": "<image>Hi"},
                    {"role": "assistant", "content": "Hi"},
                    {"role": "user", "content": "How many?"},
                ]
            },
            "messages must hold one question",
        ),
    ],
)
def test_a_bad_row_stops_the_run_or_is_rejected_with_its_reason(world, script, capsys, row, words):
    rows = world.write_rows(2)
    (world.folder / "broken.png").write_bytes(b"no image")
    Image.effect_noise((200, 200), 90).save(world.folder / "cut.png")
    whole = (world.folder / "cut.png").read_bytes()
    (world.folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    world.put([rows[0], row, rows[1]])
    assert world.run() == 1
    said = capsys.readouterr().err
    assert re.search(f"row 2: .*{words}", said)
    assert not script.asked()
    assert world.run("data.bad_rows=skip") == 0
    assert world.report["rows"] == {"read": 3, "accepted": 2, "rejected": 1, "open": 0}
    rejected = world.lines("rejected.jsonl")
    assert (rejected[0]["index"], rejected[0]["reasons"]) == (1, ["bad_row"])


def test_text_that_utf_8_cannot_hold_is_a_bad_row(world, script, capsys):
    turn = {"role": "user", "content": "<image>How many \ud83d?"}
    world.put([GOOD | {"messages": [turn]}])
    assert world.run() == 1
    assert "row 1: the user turn must be text that UTF-8 can hold" in capsys.readouterr().err
    assert not script.asked()


@pytest.mark.parametrize(
    ("answer", "given"), [(r"\frac{1}{2}", "0.5"), ("7", "7 cm"), ("B", "(B)"), ("2.0", "2")]
)
def test_answers_are_checked_as_the_rewards_check_them(world, script, answer, given):
    script.answer = lambda step, request: f"{ANCHORED}\n<answer>{given}</answer>"
    world.put([GOOD | {"answer": answer}])
    assert world.run() == 0
    assert world.report["rows"]["accepted"] == 1
    assert world.report["answers_not_judged"] == 0
    row = world.lines("rows.jsonl")[0]
    assert row["messages"][1]["content"].endswith(f"<answer>{answer}</answer>")  # the source's


def test_another_rule_judges_answers_anew(world, script):
    script.answer = lambda step, request: f"{ANCHORED}\n<answer>7 cm</answer>"
    world.put([GOOD | {"answer": "7"}])
    assert world.run("gates.checker=exact") == 0
    assert world.report["rejected_by"] == {"reason: wrong_answer": 1}
    assert world.run() == 0
    assert world.report["rows"]["accepted"] == 1


def test_an_answer_may_stand_in_the_last_turn(world):
    rows = world.write_rows(1)
    said = {"role": "assistant", "content": "<think>x</think><answer>2</answer>"}
    world.put([{"messages": [*rows[0]["messages"], said], "images": rows[0]["images"]}])
    assert world.run() == 0
    assert world.lines("rows.jsonl")[0]["answer"] == "2"


def test_a_row_that_comes_twice_is_asked_once(world, script):
    rows = world.write_rows(2)
    world.put([rows[0], rows[1], rows[0]])
    assert world.run() == 0
    assert len(script.asked()) == 6
    assert world.report["rejected_by"] == {"duplicate_row": 1}
    assert "row 1 is the same" in world.lines("rejected.jsonl")[0]["detail"]


def test_rows_that_nearly_repeat_an_earlier_one_are_rejected(world):
    assert world.run("gates.max_similarity=0.9") == 0
    assert world.report["rejected_by"] == {"near_duplicate": 2}
    assert "nearly repeats row 1" in world.lines("rejected.jsonl")[0]["detail"]


def test_finished_steps_are_found_again_when_rows_move(world, script):
    rows = world.write_rows(3)
    world.put(rows[:2])
    world.run()
    world.put(list(reversed(rows)))
    assert world.run() == 0
    assert len(script.asked()) == 9


def test_several_images_and_other_formats_are_sent_as_endpoints_take_them(world, script):
    Image.new("RGB", (30, 20)).save(world.folder / "a.jpg")
    Image.new("RGB", (30, 20)).save(world.folder / "b.bmp")
    turn = {"role": "user", "content": "<image>Like <image>?"}
    world.put([{"messages": [turn], "images": ["a.jpg", "b.bmp"], "answer": "2"}])
    assert world.run() == 0
    first, second, text = script.asked("describe")[0][1]["messages"][1]["content"]
    assert first["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert second["image_url"]["url"].startswith("data:image/png;base64,")
    assert "[image 1]Like [image 2]?" in text["text"]
    assert world.lines("rows.jsonl")[0]["messages"][0]["content"] == "<image>Like <image>?"


def test_the_folder_of_another_recipe_is_refused(world, script, capsys):
    world.run()
    asked = len(script.asked())
    for change in ("reason.temperature=0.1", "rewrite.model=test-rewrite-2"):
        assert world.run(change) == 1
        said = capsys.readouterr().err
        assert "output_dir must be of this recipe" in said
        assert change.partition("=")[0] in said
    prompt = world.folder / "mine.yaml"
    prompt.write_text("version: reason-1\nsystem: Be brief.\nuser: '{{question}}{{description}}'\n")
    assert world.run(f"reason.prompt={prompt}") == 1  # another text under the same version
    assert "reason.prompt: 'reason-1" in capsys.readouterr().err
    assert len(script.asked()) == asked
    assert world.run("reason.concurrency=1", "budget.usd=5", "reason.input_price=2.0") == 0


def test_a_folder_with_other_files_is_refused(world, script, capsys):
    world.out.mkdir()
    (world.out / "thesis.txt").write_text("mine")
    assert world.run() == 1
    assert "holds other files" in capsys.readouterr().err
    assert not script.asked()


def test_a_prompt_of_ones_own_is_used_and_recorded(world, script):
    prompt = world.folder / "mine.yaml"
    prompt.write_text("version: mine-3\nsystem: Look.\nuser: 'About {{question}} in {x}'\n")
    world.write_rows(1)
    assert world.run(f"describe.prompt={prompt}") == 0
    messages = script.asked("describe")[0][1]["messages"]
    assert messages[0]["content"] == "Look."
    assert messages[1]["content"][1]["text"] == "About How many circles? (0) in {x}"
    assert "mine-3" in (world.out / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nsystem: a\nuser: b", r"user must hold the marks {{question}}; got none"),
        ("version: 1\nuser: b", "must have the keys version, system, user; got version, user"),
        ("version: 1\nsystem: a\nuser: '{{question}}{{answer}}'", "got {{answer}}, {{question}}"),
        ("[", "must be valid YAML"),
        ("version: 1\nsystem:\nuser: '{{question}}'", "system must hold text; it is empty"),
        ("version: 1\nsystem: '{{question}}'\nuser: '{{question}}'", "system must hold no marks"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(world, capsys, text, words):
    prompt = world.folder / "mine.yaml"
    prompt.write_text(text)
    assert world.run(f"describe.prompt={prompt}") == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("samples=0", "samples must be positive and finite; got 0"),
        ("reason.modle=x", "unknown key reason.modle; did you mean reason.model"),
        ("reason.base_url=localhost:8000", "reason.base_url must be an http(s) address or 'lab'"),
        ("reason.base_url=http://u:p@host/v1", "must hold no user, password or query"),
        ("reason.base_url=http://host/v1?key=s", "must hold no user, password or query"),
        ("reason.base_url=http://host:abc/v1", "reason.base_url must be an http(s) address"),
        ("reason.base_url=http://[::1/v1", "reason.base_url must be an http(s) address"),
        ("reason.model=''", "reason.model must name a model"),
        ("reason.prompt=''", "reason.prompt must be an existing YAML file"),
        ("reason.top_p=2", "reason.top_p must be in (0, 1]; got 2.0"),
        ("reason.extra_body={max_tokens: 9}", "reason.extra_body must leave max_tokens to"),
        ("reason.extra_body={api_key: sk-1}", "reason.extra_body must hold no key"),
        ("gates.script=Latin", "gates.script must be the first word of letters' names"),
        ("gates.checker=close", "gates.checker must be one of accuracy, exact"),
        ("gates.anchors=['look|']", "gates.anchors must hold patterns of some text"),
        ("gates.anchors=['(']", "gates.anchors must hold regular expressions"),
        ("gates.min_chars=100000", "gates.max_chars must be at least gates.min_chars"),
        ("gates.max_similarity=2", "gates.max_similarity must be in (0, 1]; got 2.0"),
        ("budget.usd=0", "budget.usd must be positive"),
        ("data.path=absent.jsonl", "data.path must be an existing file"),
    ],
)
def test_bad_recipes(world, script, capsys, override, words):
    assert world.run(override) == 1
    assert words in capsys.readouterr().err
    assert not script.asked()
    assert not world.out.exists()


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("openai", "openai", "synth"), ("sklearn", "scikit-learn", "lab")],
)
def test_a_package_that_is_missing(world, script, monkeypatch, capsys, module, package, extra):
    """Without scikit-learn every request to the lab's writer once failed, each after retries."""
    monkeypatch.setitem(sys.modules, module, None)
    assert world.run("describe.base_url=lab", "describe.model=lab-describe") == 1
    assert f'{package}, which is not installed. Use: pip install "avar-fast[{extra}]"' in (
        capsys.readouterr().err
    )
    assert not script.asked()
    assert not world.out.exists()


def test_a_key_in_place_of_its_name_is_not_repeated(world, capsys):
    assert world.run("reason.key_env=sk-proj-0123456789") == 1
    said = capsys.readouterr()
    assert "reason.key_env must be the name of an environment variable" in said.err
    assert "0123456789" not in said.out + said.err


def test_the_resolved_recipe_is_stored_and_reads_back(world):
    world.run("reason.extra_body={top_k: 20}")
    stored = read_recipe(SynthesisRecipe, world.out / "recipe.yaml")
    assert stored.reason.extra_body == {"top_k": 20}
    assert dump_recipe(stored) == (world.out / "recipe.yaml").read_text()
    assert json.loads((world.out / "identity.json").read_text())["reason.model"] == "test-reason"
