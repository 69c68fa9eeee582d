"""Answer extraction, comparison and format."""

import time

import pytest

from avar_fast.rewards import RULES, extract_answer, has_format, is_correct


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
        ("<answer>11 <answer>12</answer>", "12", False),
        ("<answer>12</answer></answer>", "12", True),
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


def test_many_open_tags_take_no_longer_than_their_length():
    """The pattern looked ahead to the end of the text from each tag."""
    started = time.process_time()
    assert extract_answer("<answer>" * 50_000) is None
    assert extract_answer("<answer>3</answer>" * 50_000) == "3"
    assert not has_format("<think>" * 50_000)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("given", "answer", "want"),
    [
        ("B", "B", 1.0),
        ("(b)", "B", 1.0),
        ("B. 12 cm", "(B)", 1.0),
        ("The answer is B", "b", 1.0),
        ("C", "B", 0.0),
        ("Because", "B", 0.0),
        ("", "B", 0.0),
        ("12", "12", None),
    ],
)
def test_multiple_choice(given, answer, want):
    assert RULES["multiple_choice"].score(f"<answer>{given}</answer>", answer) == want


@pytest.mark.parametrize(
    ("given", "answer", "want"),
    [
        ("3.15", "3.14159", 1.0),
        ("3.2", "3.14159", 0.0),
        ("about 1,210 cm", "1200", 1.0),
        ("-4/2", "-2", 1.0),
        ("50 %", "0.5", 1.0),
        ("0.005", "0", 1.0),
        ("0.5", "0", 0.0),
        ("2.5e3", "2500", 1.0),
        ("3 or 4", "3", 0.0),
        ("1/0", "3", 0.0),
        ("left", "3", 0.0),
        ("left", "left", None),
    ],
)
def test_numeric(given, answer, want):
    assert RULES["numeric"].score(f"<answer>{given}</answer>", answer, 0.01) == want


@pytest.mark.parametrize(
    ("text", "answer", "want"),
    [
        (r"<answer>\frac{2}{4}</answer>", "0.5", 1.0),
        (r"<answer>$x^2 + 2x + 1$</answer>", "(x+1)^2", 1.0),
        (r"<answer>12 cm</answer>", "12", 1.0),
        (r"<answer>left</answer>", "Left", 1.0),
        (r"so it is \boxed{\frac{1}{2}}", "1/2", 1.0),
        (r"\boxed{3} <answer>4</answer>", "3", 0.0),
        ("<answer>right</answer>", "left", 0.0),
        ("1/2", "1/2", 0.0),
        ("<answer></answer>", "0", 0.0),
    ],
)
def test_accuracy_is_mathematical_equality(text, answer, want):
    assert RULES["accuracy"].score(text, answer) == want
