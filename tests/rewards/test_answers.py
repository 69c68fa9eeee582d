"""Answer extraction, comparison and format."""

import pytest

from avar_fast.rewards import extract_answer, has_format, is_correct


@pytest.mark.parametrize(
    ("text", "answer", "want"),
    [
        ("<answer>12</answer>", "12", True),
        ("<think>3 + 9</think><answer> 12. </answer>", "12", True),
        ("<answer>11</answer> no, <answer>12</answer>", "12", True),
        ("<answer>0.5</answer>", "1/2", True),
        ("<answer>1,200</answer>", "1200", True),
        ("<answer>Left</answer>", "left", True),
        ("<answer>\n12\n</answer>", "12", True),
        ("<answer>1/0</answer>", "12", False),
        ("<answer>5**5**5**5</answer>", "12", False),
        ("<answer>2</answer>", "12", False),
        ("12", "12", False),
        ("<answer>12", "12", False),
        ("<answer></answer>", "0", False),
    ],
)
def test_correct(text, answer, want):
    assert is_correct(text, answer) is want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("<answer>12</answer>", True),
        ("<think>3 + 9\n= 12</think>\n<answer>12</answer>", True),
        ("<answer>12</answer><think>late</think>", False),
        ("so <answer>12</answer>", False),
        ("<answer>1</answer><answer>2</answer>", False),
        ("<think>a<think>b</think><answer>2</answer>", False),
        ("<think>open<answer>2</answer>", False),
        ("", False),
    ],
)
def test_format(text, want):
    assert has_format(text) is want


def test_no_answer_is_none():
    assert extract_answer("nothing here") is None
