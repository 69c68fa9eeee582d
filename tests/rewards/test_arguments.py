"""What reward functions and the rule of the format are handed beyond the completions."""

import dataclasses

import pytest
from PIL import Image

from avar_fast.rewards import Rewards, TrainerState

from .completions import FUNCTIONS, asked


def with_images(opened, **more):
    """Four completions of two rows: one with two images, one with one."""
    sizes = [(3, 5), (4, 6)], [(7, 9)]

    def open_images():
        opened.append(1)
        first, second = ([Image.new("RGB", size) for size in some] for some in sizes)
        return [first, first, second, second]

    some = asked(("a", "b", "c", "d"), range(4), group_size=2)
    return dataclasses.replace(some, open_images=open_images, state=TrainerState(3, 9), **more)


def test_a_function_that_takes_images_gets_those_of_each_row(rewards):
    """It was refused although the rows have them, and **kwargs never got them."""
    names = [f"{FUNCTIONS}:{name}" for name in ("image_sizes", "any_images", "lone_image")]
    opened = []
    got = rewards(*names).score(with_images(opened))
    assert not got.problems
    assert got.values[names[0]] == [7.0, 7.0, 7.0, 7.0]
    assert got.values[names[1]] == [12.0, 12.0, 11.0, 11.0], "a group shares its images"
    assert got.values[names[2]] == [-1.0, -1.0, 9.0, 9.0]


def test_images_are_opened_for_no_function_that_does_not_take_them(rewards):
    opened = []
    name = f"{FUNCTIONS}:no_images"
    got = rewards(name, "format", "exact").score(with_images(opened))
    assert got.values[name] == [1.0] * 4
    assert not opened


def test_images_that_cannot_be_opened_fail_the_function_alone(rewards):
    def gone():
        raise ValueError("image x.png does not exist")

    name = f"{FUNCTIONS}:image_sizes"
    some = dataclasses.replace(asked(), open_images=gone)
    got = rewards(name, "format").score(some)
    assert "failed: image x.png does not exist" in str(got.problems[0])
    assert got.num_failed == 3


def test_asked_again_in_parts_each_part_has_its_images_and_the_state(rewards):
    name = f"{FUNCTIONS}:images_or_boom"
    some = dataclasses.replace(with_images([]), texts=["a", "b", "boom", "d"])
    got = rewards(name).score(some)
    assert got.values[name] == [5.0, 5.0, 0.0, 4.0]


def test_a_function_may_ask_how_far_the_run_is(rewards):
    name = f"{FUNCTIONS}:by_progress"
    assert rewards(name).score(with_images([])).values[name] == [3 / 9] * 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("logs", r"it takes log_metric too. Only TRL's trainer has log_extra, log_metric"),
        ("wants_messages", "it takes messages too. Take the turns from prompts"),
        ("needs_more", "it takes solution too. Give it a default, or add the column"),
    ],
)
def test_what_this_trainer_does_not_have_is_said_with_the_remedy(rewards, name, words):
    with pytest.raises(ValueError, match=words):
        rewards(f"{FUNCTIONS}:{name}")


def test_the_format_is_that_of_the_reply_as_the_prompt_has_opened_it():
    """Templates that open <think> in the prompt: completions that close it had no format."""
    closes = "so</think>\n<answer>2</answer>"
    whole = f"<think>{closes}"
    texts = (closes, whole, "<answer>2</answer>")
    strict = asked(texts)
    opened = dataclasses.replace(strict, opened=["<think>\n"] * 3)
    some = Rewards(("format", "exact"))
    assert some.score(strict).values["format"] == [0.0, 1.0, 1.0]
    assert some.score(opened).values["format"] == [1.0, 0.0, 0.0]
    mixed = dataclasses.replace(strict, opened=["<think>\n", "", ""])
    assert some.score(mixed).values["format"] == [1.0, 1.0, 1.0]
    assert some.score(opened).values["exact"] == some.score(strict).values["exact"]


def test_user_functions_get_the_completion_alone(rewards):
    name = f"{FUNCTIONS}:lengths"
    some = dataclasses.replace(asked(("a", "bb", "ccc")), opened=["<think>"] * 3)
    assert rewards(name).score(some).values[name] == [1.0, 2.0, 3.0]
