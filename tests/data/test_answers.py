"""Answers and reasoning of a record: what is text, what is taken off, what is refused."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from avar_fast.data import RowError, load_rows, parse_row


def row(**fields):
    return parse_row({"problem": "How many?"} | fields, "row 1", Path())


def test_a_list_holds_accepted_answers_and_the_first_is_trained():
    """A list became the text "['4', 'four']", target and reference alike."""
    got = row(answer=["4", "four", 4], reasoning="2 + 2")
    assert got.answers == ("4", "four")
    assert (got.answer, got.reference) == ("4", ["4", "four"])
    assert got.target == "<think>2 + 2</think><answer>4</answer>"
    assert row(answer=[4]).reference == "4"


@pytest.mark.parametrize(
    ("given", "text"),
    [(3, "3"), (2.5, "2.5"), (3.0, "3"), (10**400, "1" + "0" * 400), (Decimal("0.10"), "0.10")],
)
def test_numbers_are_written_as_they_are(given, text):
    assert row(answer=given).answers == (text,)


def test_tags_are_taken_off_once_and_noted():
    """They stood twice in the target, and no completion could be right."""
    got = row(answer=" <answer>8</answer>\n", reasoning="<think>4 + 4</think>")
    assert got.target == "<think>4 + 4</think><answer>8</answer>"
    assert got.notes == (
        "<answer> tags around answer taken off",
        "<think> tags around reasoning taken off",
    )
    assert row(answer=["<answer>8</answer>", "eight"]).reference == ["8", "eight"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer": {"value": 1}}, "answer must be text, a number, or a list"),
        ({"answer": True}, 'answer must be text, .* got True. Write .* "yes" rather than true'),
        ({"answer": float("nan")}, "answer must be a finite number or text; got nan"),
        ({"answer": float("-inf")}, "answer must be a finite number"),
        ({"answer": ""}, "answer must not be empty"),
        ({"answer": " \n"}, "answer must not be empty"),
        ({"answer": "\u200b"}, "answer must not be empty"),
        ({"answer": "<ANSWER>8"}, "answer must hold no <answer>"),
        ({"answer": b"8"}, "answer must be text"),
        ({"answer": []}, "answer must be text, .* got an empty list"),
        ({"answer": ["8", ["9"]]}, r"answer\[1\] must be text"),
        ({"answer": ["8", None]}, r"answer\[1\] must be text"),
        ({"answer": ["", "8"]}, r"answer\[0\] must not be empty"),
        ({"answer": "<answer></answer>"}, "answer must hold no .* it is empty between its tags"),
        ({"answer": "<answer><answer>8</answer></answer>"}, "answer must hold no <answer>"),
        ({"answer": "8</answer>"}, "answer must hold no <answer>"),
        ({"answer": "<think>4 + 4</think><answer>8</answer>"}, "answer must hold no <answer>"),
        ({"answer": "\ud83d"}, "answer must be text that UTF-8 can hold"),
        ({"answer": "8", "reasoning": ["4", "4"]}, "reasoning must be text"),
        ({"answer": "8", "reasoning": 4}, "reasoning must be text"),
        ({"answer": "8", "reasoning": "4 </think> 4"}, "reasoning must hold no"),
        ({"answer": "8", "reasoning": "\ud83d"}, "reasoning must be text that UTF-8 can hold"),
    ],
)
def test_what_is_no_text_is_an_error_of_its_field(fields, words):
    """All of it was turned into text and trained on."""
    with pytest.raises(RowError, match=f"row 1: {words}"):
        row(**fields)


def test_an_assistant_that_says_nothing_is_an_error():
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": " "}]
    with pytest.raises(RowError, match="an assistant turn must say something"):
        parse_row({"messages": turns}, "row 1", Path())


def test_reasoning_that_is_null_or_blank_is_none():
    for nothing in (None, "", "  "):
        assert row(answer="8", reasoning=nothing).target == "<answer>8</answer>"


def test_nan_in_a_file_and_half_a_pair_in_a_turn_are_row_errors(tmp_path):
    """Half of a surrogate pair ended the check, training and evaluation in a traceback."""
    lines = [
        '{"problem": "?", "answer": NaN}',
        json.dumps({"problem": "\ud83d?", "answer": "8"}),
        "[" * 100_000,
        '{"problem": "?", "answer": "8"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = load_rows(str(tmp_path / "rows.jsonl"), keep_bad_lines=True)
    for index, words in enumerate(("finite", "UTF-8 can hold; .* surrogate pair, at 0", "JSON")):
        with pytest.raises(RowError, match=words):
            rows[index]
    assert rows[3].answer == "8"


def test_typed_columns_answer_as_the_data_set_shows_them(tmp_path):
    """A class was trained as its number, and 0.1 as 0.10000000149011612."""
    import datasets

    for name, feature, value, want in (
        ("class", datasets.ClassLabel(names=["cat", "dog"]), 1, "dog"),
        ("narrow", datasets.Value("float32"), 0.1, "0.1"),
    ):
        features = datasets.Features({"problem": datasets.Value("string"), "answer": feature})
        rows = datasets.Dataset.from_list([{"problem": "?", "answer": value}], features=features)
        rows.save_to_disk(str(tmp_path / name))
        assert load_rows(str(tmp_path / name))[0].answer == want
