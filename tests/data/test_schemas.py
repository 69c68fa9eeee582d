"""Every schema, source and kind of image gives the same row; what none can use is named."""

import base64
import io
import json
import textwrap

import datasets
import pytest
from PIL import Image

from avar_fast.data import RowError, load_rows, parse_row
from avar_fast.data.images import open_image
from avar_fast.missing import HELD_OUT

from .samples import png

PNG = png((56, 28), 1)
QUESTION = "<image>How many?"
MESSAGES = {
    "messages": [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Three."},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Look."},
        {"from": "human", "value": QUESTION},
        {"from": "gpt", "value": "Three."},
    ]
}
PROBLEM = {"problem": QUESTION, "answer": "3"}


def parse(record, folder=None):
    return parse_row(record, "rows row 1", folder)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    return tmp_path


@pytest.mark.parametrize("record", [MESSAGES, SHAREGPT])
def test_messages_and_sharegpt_give_the_same_row(record, folder):
    for images in ({"images": ["a.png"]}, {"image": "a.png"}, {"images": PNG}):
        row = parse(record | images, folder)
        assert [turn["role"] for turn in row.messages] == ["system", "user"]
        assert row.messages[1]["content"] == [
            {"type": "image"},
            {"type": "text", "text": "How many?"},
        ]
        assert row.target == "Three."
        assert len(row.images) == 1
    assert row.schema == ("messages" if "messages" in record else "sharegpt")


def test_sharegpt_takes_its_system_text_from_a_column_too():
    turns = SHAREGPT["conversations"][1:]
    row = parse({"conversations": turns, "system": "Look.", "images": [PNG]})
    assert row.messages == parse(SHAREGPT | {"images": [PNG]}).messages


def test_problem_and_answer_columns_make_a_question_and_a_target():
    row = parse(PROBLEM | {"images": [{"bytes": PNG, "path": None}], "id": 7})
    assert (row.schema, row.answer, row.target) == ("problem", "3", "<answer>3</answer>")
    assert row.messages[0]["content"][1]["text"] == "How many?"
    assert parse({"question": "Why?", "answer": 4}).answer == "4"


def test_images_may_stand_in_their_parts():
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts = [
        {"type": "image", "image": PNG},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": "Same?"},
    ]
    row = parse({"messages": [{"role": "user", "content": parts}], "answer": "yes"})
    assert row.images == [PNG, PNG]
    assert [part["type"] for part in row.messages[0]["content"]] == ["image", "image", "text"]


def test_every_kind_of_image_opens_to_the_same_pixels(folder):
    whole = Image.open(io.BytesIO(PNG))
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    kinds = ["a.png", str(folder / "a.png"), f"file://{folder / 'a.png'}", PNG, uri, whole]
    kinds += [{"bytes": PNG, "path": "gone.png"}, {"bytes": None, "path": "a.png"}]
    for image in kinds:
        row = parse(PROBLEM | {"images": [image]}, folder)
        opened = open_image(row.images[0], "row 1")
        assert opened.mode == "RGB"
        assert opened.tobytes() == whole.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "x", "label": 1}, "columns must be those of a known schema; got text, label."),
        ({"text": "x"}, r"Known: messages \(messages\); sharegpt \(conversations\); problem"),
        (PROBLEM | {"images": []}, "hold one <image> per image; got 1 for 0 images"),
        (PROBLEM | {"images": [PNG, PNG]}, "hold one <image> per image; got 1 for 2 images"),
        (PROBLEM | {"images": ["https://x.org/a.png"]}, "local file; got the address 'https"),
        (PROBLEM | {"images": ["data:image/png,abc"]}, "must be a base64 data URI; got"),
        (PROBLEM | {"images": ["data:image/png;base64,a"]}, "must be a base64 data URI; Invalid"),
        (
            {"messages": [{"role": "user", "content": "?", "reasoning_content": "x"}]},
            "a turn must have all its text in its content; it has reasoning_content",
        ),
        (
            {"conversations": [{"from": "gpt", "value": " "}, {"from": "human", "value": "?"}]},
            "an assistant turn must say something",
        ),
        ({"problem": "<video></video> <video>", "answer": "1"}, "problem must hold no video"),
        (PROBLEM | {"images": [{"path": None}]}, "must be a path, bytes, .*; got dict"),
        (PROBLEM | {"videos": ["a.mp4"], "images": [PNG]}, "videos must hold no video; it does"),
        ({"problem": "<video>?", "answer": "1"}, "problem must hold no video"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]},
            "content must hold no video; it does. Video is not supported; give its frames",
        ),
        (
            {
                "conversations": [
                    *SHAREGPT["conversations"][:2],
                    {"from": "gpt", "value": "<image>"},
                ]
            },
            "the answer must be text; it holds an image",
        ),
        (
            PROBLEM | {"problem": [{"type": "image", "image": PNG, "max_pixels": 9}]},
            "problem must not set the size of single images; got max_pixels. .*data.max_pixels",
        ),
        ({"conversations": []}, "conversations must be a non-empty list"),
        ({"conversations": [{"from": "robot", "value": "?"}]}, "a turn of conversations must have"),
        ({"conversations": [{"from": "human", "value": 3}]}, "value must be text or a list"),
    ],
)
def test_what_no_schema_can_use_is_named(record, words):
    with pytest.raises(RowError, match=f"^rows row 1: .*{words}"):
        parse(record)


def test_a_message_never_floods_with_the_bytes_of_an_image():
    with pytest.raises(RowError) as caught:
        parse({"messages": [{"role": "user", "content": [{"type": "text", "image": PNG}]}]})
    assert len(str(caught.value)) < 400


@pytest.fixture(params=["parquet", "save_to_disk", "dataset_dict", "parquet folder"])
def stored(request, tmp_path):
    """A data set with a decodable column of lists of images, as geometry3k has it."""
    record = {"images": [{"bytes": PNG, "path": None}], **PROBLEM}
    kinds = {"images": datasets.List(datasets.Image())}
    features = datasets.Features(
        kinds | {name: datasets.Value("string") for name in ("problem", "answer")}
    )
    whole = datasets.Dataset.from_list([record, record | {"answer": "4"}], features=features)
    path = tmp_path / "data"
    if request.param == "parquet":
        path = path.with_suffix(".parquet")
        whole.to_parquet(str(path))
    elif request.param == "parquet folder":
        path.mkdir()
        whole.to_parquet(str(path / "0.parquet"))
    elif request.param == "save_to_disk":
        whole.save_to_disk(str(path))
    else:
        datasets.DatasetDict({"test": whole}).save_to_disk(str(path))
    return str(path)


def test_datasets_give_images_as_stored_bytes(stored, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was decoded while the row was read")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    rows = load_rows(stored, split="test")
    assert [row.answer for row in rows] == ["3", "4"]
    assert rows[0].images == [PNG]
    assert len(load_rows(stored, split="test", limit=1)) == 1


def test_sources_that_cannot_be_opened_are_named(tmp_path):
    whole = datasets.Dataset.from_list([PROBLEM])
    datasets.DatasetDict({"train": whole}).save_to_disk(str(tmp_path / "dict"))
    with pytest.raises(ValueError, match="data.split must be one of train of .*; got 'dev'"):
        load_rows(str(tmp_path / "dict"), split="dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="folder of .parquet files or one that datasets wrote"):
        load_rows(str(tmp_path / "empty"))
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(ValueError, match=".jsonl, .json or .parquet file; got .*rows.csv"):
        load_rows(str(tmp_path / "rows.csv"))
    with pytest.raises(FileNotFoundError, match="data.path must be an existing file"):
        load_rows(str(tmp_path / "none.parquet"))


def test_lines_that_are_no_json_can_be_kept_for_later(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(json.dumps({"question": "?", "answer": "1"}).encode() + b'\n\n{"messa\n\xff\n')
    with pytest.raises(ValueError, match=r"rows.jsonl line 3 must be one JSON object"):
        load_rows(str(file))
    rows = load_rows(str(file), keep_bad_lines=True)
    assert len(rows) == 3
    assert rows[0].answer == "1"
    for index, line in ((1, 3), (2, 4)):
        with pytest.raises(RowError, match=f"line {line} must be one JSON object"):
            rows[index]


def test_marks_that_a_text_speaks_of_are_escaped():
    """<video> inside HTML was refused as a video, and <image> could not be spoken of at all."""
    for text, said in (
        ("<video><source src='a.mp4'></video>?", "<video><source src='a.mp4'></video>?"),
        (r"What is \<video> in HTML?", "What is <video> in HTML?"),
        (r"What is \<image>?", "What is <image>?"),
    ):
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        row = parse({"messages": turns})
        assert row.messages[0]["content"] == [{"type": "text", "text": said}]
        assert row.target == said
    both = parse({"problem": r"<image>What is \<image>?", "images": [PNG], "answer": "a mark"})
    assert [part["type"] for part in both.messages[0]["content"]] == ["image", "text"]
    with pytest.raises(RowError, match=r"If the text means the mark itself, write"):
        parse({"problem": "What is <image>?", "answer": "a mark"})


@pytest.mark.parametrize("name", ["ROWS.JSONL", "rows.Json", "bom.json", "bom.jsonl"])
def test_files_by_any_case_and_with_a_byte_order_mark(tmp_path, name):
    text = json.dumps({"problem": "?", "answer": "1"})
    text = f"[{text}]" if name.lower().endswith(".json") else text
    mark = b"\xef\xbb\xbf" if name.startswith("bom") else b""
    (tmp_path / name).write_bytes(mark + text.encode())
    assert load_rows(str(tmp_path / name))[0].answer == "1"


def test_errors_of_a_path_name_its_setting(tmp_path):
    """An empty eval.path was reported as data.path."""
    (tmp_path / "empty.jsonl").write_text("")
    for path, words in (("empty.jsonl", "hold at least one row"), ("none.json", "be an existing")):
        with pytest.raises((ValueError, FileNotFoundError), match=f"^eval.path must {words}"):
            load_rows(str(tmp_path / path), names=HELD_OUT)


def test_base64_without_its_prefix_is_a_row_error(tmp_path):
    """The system's own error ended the check, the text of the image all over the screen."""
    with pytest.raises(RowError, match=r"row 1: images\[0\] must be a path, .* File name too long"):
        parse_row(PROBLEM | {"images": ["iVBORw0KGgo" * 1000]}, "row 1", tmp_path)
    broken = "\n".join(textwrap.wrap(base64.b64encode(PNG).decode(), 76))
    row = parse_row(PROBLEM | {"images": [f"Data:image/png;base64,{broken}"]}, "row 1", tmp_path)
    assert row.images == [PNG]
    (tmp_path / "a b.png").write_bytes(PNG)
    address = f"file://{tmp_path}/a%20b.png"
    row = parse_row(PROBLEM | {"images": [address]}, "row 1", tmp_path)
    assert row.images == [tmp_path / "a b.png"]
