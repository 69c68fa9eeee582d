"""Rows in the schemas people have, and errors that name file, row and field."""

import json

import pytest
from PIL import Image

from avar_fast.data import load_rows


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (28, 28), "red").save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    return tmp_path


GOOD = {
    "messages": [{"role": "user", "content": "<image>How many?"}],
    "images": ["a.png"],
    "answer": 3,
}


def write(folder, *records):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(r) if isinstance(r, dict) else r for r in records))
    return str(path)


def test_the_target_is_composed_from_answer_and_reasoning(folder):
    rows = load_rows(write(folder, GOOD, GOOD | {"reasoning": "1 + 2"}))
    assert [row.target for row in rows] == [
        "<answer>3</answer>",
        "<think>1 + 2</think><answer>3</answer>",
    ]
    assert rows[0].messages[0]["content"] == [
        {"type": "image"},
        {"type": "text", "text": "How many?"},
    ]
    assert rows[0].images == [folder / "a.png"]


def test_a_final_assistant_turn_is_the_target_and_parts_may_be_lists(folder):
    messages = [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [{"type": "image", "image": "ignored"}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": "<answer>9</answer>"},
    ]
    row = load_rows(write(folder, GOOD | {"messages": messages}))[0]
    assert row.target == "<answer>9</answer>"
    assert [m["role"] for m in row.messages] == ["system", "user"]


def test_limit_and_parquet(folder):
    assert len(load_rows(write(folder, GOOD, GOOD, GOOD), limit=2)) == 2
    import datasets

    datasets.Dataset.from_list([GOOD | {"answer": "3"}]).to_parquet(str(folder / "rows.parquet"))
    assert load_rows(str(folder / "rows.parquet"))[0].answer == "3"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(images=["none.png"]), FileNotFoundError, r"row 2: image .*none.png does not exist"),
        (
            dict(images=[]),
            ValueError,
            "row 2: messages must hold one <image> per image; got 1 for 0 images",
        ),
        (dict(images=["a.png", "a.png"]), ValueError, "got 1 for 2 images"),
        (dict(messages=[]), ValueError, "row 2: messages must be a non-empty list"),
        (
            dict(messages=[{"role": "robot", "content": ""}]),
            ValueError,
            "row 2: a message must have role",
        ),
        (
            dict(messages=[{"role": "user", "content": 5}]),
            ValueError,
            "row 2: content must be text or a list",
        ),
        (
            dict(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            ValueError,
            "row 2: content must be text or .* a text part with its text",
        ),
        (
            dict(messages=[{"role": "system", "content": "x"}], images=[]),
            ValueError,
            "must end with a user turn",
        ),
        (
            dict(images=[7]),
            ValueError,
            r"row 2: images\[0\] must be a path, .* PIL image; got int 7",
        ),
    ],
)
def test_bad_rows_are_named(folder, change, error, words):
    rows = load_rows(write(folder, GOOD, GOOD | change))
    assert rows[0].answer == "3"
    with pytest.raises(error, match=words):
        rows[1]


def test_bad_files_are_named(folder):
    with pytest.raises(ValueError, match=r"rows.jsonl line 2 must be one JSON object"):
        load_rows(write(folder, GOOD, "{oops"))
    with pytest.raises(ValueError, match="row 1: a row must be a JSON object; got list"):
        load_rows(write(folder, "[1, 2]"))[0]
    with pytest.raises(FileNotFoundError, match="data.path must be an existing file"):
        load_rows(str(folder / "none.jsonl"))
    with pytest.raises(ValueError, match="at least one row"):
        load_rows(write(folder))


def test_bad_json_files_are_named(folder):
    file = folder / "rows.json"
    file.write_text(json.dumps({"rows": [GOOD]}))
    with pytest.raises(ValueError, match="must hold a JSON list of rows; .*rows.json holds a dict"):
        load_rows(str(file))
    file.write_text("[1,")
    with pytest.raises(ValueError, match="must be valid JSON; .*rows.json"):
        load_rows(str(file))
    file.write_text(json.dumps([GOOD]))
    assert load_rows(str(file))[0].answer == "3"
