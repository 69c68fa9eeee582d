"""The check reads everything, names what is wrong, goes on, and says so by its exit code."""

import base64
import json

import pytest

from avar_fast.data.__main__ import main
from avar_fast.lab.model import build_config, build_image_processor
from avar_fast.lab.tokenizer import build_tokenizer

from .samples import WITH_WORKERS, png

GOOD = {"problem": "<image>Add row 1.", "answer": "3", "images": ["a.png"]}
TEXT = {"problem": "Add row 1. Answer at once.", "answer": "3"}

pytestmark = WITH_WORKERS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """What the check reads of a model: everything but weights."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(path)
    build_config(tokenizer).save_pretrained(path)
    build_image_processor().save_pretrained(path)
    return path


@pytest.fixture
def checked(model, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(png((56, 56), 0))
    (tmp_path / "cut.png").write_bytes(png((56, 56), 0)[:-900])

    def run(records, *overrides, model=model):
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines))
        recipe = {
            "stage": "sft",
            "model": {"path": str(model)},
            "data": {"path": str(tmp_path / "rows.jsonl"), "max_length": 100, "workers": 0},
            "train": {"output_dir": str(tmp_path / "out"), "steps": 10, "batch_size": 2},
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        code = main(["check", str(tmp_path / "recipe.yaml"), *overrides])
        said = capsys.readouterr()
        return code, said.out + (said.err if code == 2 else "")

    return run


def test_counts_lengths_and_plan_of_a_good_set(checked):
    code, out = checked([GOOD] * 3 + [TEXT])
    assert code == 0
    for line in (
        "columns      problem, answer, images",
        "schema       problem (4 rows)",
        "rows         4",
        "images       3 (most in a row: 1)",
        "text only    1 rows",
        "steps        2.0 per epoch at 2 rows a step",
        "run          10 steps are 5.00 epochs",
        "time         not estimated: pass --tokens-per-s",
        "every row can be used",
    ):
        assert line in out, line
    assert "  <= 32             4 ####" in out


def test_every_kind_of_bad_row_is_listed_and_the_rest_is_read(checked, tmp_path):
    wide = base64.b64encode(png((28 * 201, 28), 0)).decode()
    records = [
        GOOD,
        '{"problem": "cut',
        GOOD | {"images": ["gone.png"]},
        GOOD | {"images": ["cut.png"]},
        GOOD | {"images": []},
        GOOD | {"videos": ["a.mp4"]},
        {"text": "?"},
        {"messages": [{"role": "user", "content": "Add."}]},
        GOOD | {"images": [f"data:image/png;base64,{wide}"]},
        TEXT,
    ]
    code, out = checked(records, "data.workers=2")
    assert code == 1
    file = tmp_path / "rows.jsonl"
    for words in (
        "8 rows cannot be used:",
        f"{file} line 2 must be one JSON object",
        f"{file} row 3: image {tmp_path / 'gone.png'} does not exist",
        f"{file} row 4: image {tmp_path / 'cut.png'} cannot be read",
        f"{file} row 5: messages must hold one <image> per image; got 1 for 0 images",
        f"{file} row 6: videos must hold no video",
        f"{file} row 7: the columns must be those of a known schema; got text",
        f"{file} row 8: stage sft needs an answer",
        f"{file} row 9: images must be such that the image processor takes them; absolute aspect",
        "8 rows that training cannot use",
    ):
        assert words in out, words
    assert "rows         10" in out
    code, out = checked(records, "--list", "2")
    assert code == 1
    assert "row 4:" not in out
    assert "... and 6 more" in out


def test_halves_of_surrogate_pairs_anywhere_do_not_end_the_check(checked):
    """One in the name of an image or of a column ended it in a traceback."""
    records = [GOOD | {"\ud800": 1}, GOOD | {"images": ["\ud800.png"]}, {"\ud800": 1}, GOOD]
    code, out = checked(records)
    assert code == 1
    assert "2 rows cannot be used" in out
    assert "\\ud800" in out


def test_overlong_rows_count_as_the_recipe_says(checked):
    records = [GOOD, TEXT | {"reasoning": "1 + 2 = 3 " * 30}]
    code, out = checked(records)
    assert code == 1
    assert "1 rows are overlong (an error in training):" in out
    assert "row 2: a sample must have at most data.max_length = 100 tokens" in out
    code, out = checked(records, "data.overlong=drop")
    assert code == 0
    assert "1 rows are overlong (dropped)" in out
    code, out = checked(records, "data.overlong=cut")
    assert code == 0
    assert "cut          1 rows to data.max_length = 100" in out
    assert "longest 100 of data.max_length = 100" in out


def test_a_large_photograph_is_not_too_long_where_pixels_are_capped(checked):
    """6 megapixels are 7700 tokens as they are."""
    photo = base64.b64encode(png((3000, 2000), 0)).decode()
    records = [GOOD | {"images": [f"data:image/png;base64,{photo}"]}, GOOD]
    for most, code in ((50_176, 0), (200_704, 1)):
        # The lab's own image processor has 50176; another limit takes its place.
        got, out = checked(records, f"data.max_pixels={most}", "data.max_length=150")
        assert got == code, out
    assert "a sample must have at most data.max_length = 150 tokens" in out
    code, out = checked(records, "data.min_pixels=9", "data.max_pixels=8")
    assert code == 2
    assert "data.min_pixels must be at most data.max_pixels = 8; got 9" in out


def test_earlier_turns_and_what_was_taken_off_are_counted(checked):
    """A conversation's earlier answers were left untrained without a word."""
    turns = [{"role": role, "content": "Hm."} for role in ("user", "assistant")] * 3
    records = [{"messages": turns}, TEXT, TEXT | {"answer": "<answer>3</answer>"}]
    for choice, fate in (("all", "trained"), ("last", "not trained")):
        code, out = checked(records, f"data.train_turns={choice}")
        assert code == 0, out
        assert f"turns        2 earlier assistant turns in 1 rows, {fate}" in out
        assert "note         <answer> tags around answer taken off: 1 rows" in out


def test_a_tokenizer_that_does_not_fit_the_model_is_named(checked, model, tmp_path):
    import shutil

    grown = shutil.copytree(model, tmp_path / "grown")
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<|looks|>"])
    tokenizer.save_pretrained(grown)
    code, out = checked([GOOD], model=grown)
    assert code == 2
    assert "must fit its model; its token '<|looks|>' has id" in out


def test_packs_and_time(checked, tmp_path):
    packing = ["data.packing=true", "train.micro_batch_size=1"]
    code, out = checked([GOOD] * 40, *packing, "--tokens-per-s", "100")
    assert code == 0
    assert "of 100 tokens in the first epoch" in out
    assert "packs a step" in out
    assert "tokens/s (as given)" in out
    (tmp_path / "out").mkdir()
    steps = [{"step": i, "tokens_per_s": rate} for i, rate in enumerate((1, 50, 70, 60))]
    log = tmp_path / "out" / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, steps)) + '\n{"cut')
    _, out = checked([GOOD] * 40, *packing)
    assert f"at 60 tokens/s (median of 3 steps of {log})" in out


def test_a_template_without_system_turn_is_named(checked, model, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    template = (bare / "chat_template.jinja").read_text()
    without = template.replace(
        "{%- for turn in messages -%}",
        '{%- for turn in messages if turn.role != "system" -%}',
    )
    assert without != template
    (bare / "chat_template.jinja").write_text(without)
    code, out = checked([TEXT], model=bare)
    assert code == 1
    assert "row 1: the chat template must write the system turn as <|im_start|>system" in out
    refusing = template.replace("{%- for turn", '{{- raise_exception("no system") -}}{%- for turn')
    (bare / "chat_template.jinja").write_text(refusing)
    code, out = checked([TEXT], model=bare)
    assert code == 1
    assert "the chat template must take the turns of the row; it says: no system" in out


def test_what_cannot_be_opened_ends_with_one_line(checked, tmp_path):
    code, out = checked([GOOD], f"data.path={tmp_path / 'none.jsonl'}")
    assert code == 2
    assert "error: data.path must be an existing file" in out
    code, out = checked([GOOD], "data.pakcing=true")
    assert code == 2
    assert "did you mean data.packing" in out
