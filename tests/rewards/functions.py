"""Reward functions as a user writes them, well and badly."""

import asyncio
import time

import numpy as np

CALLS = []


def lengths(completions, **kwargs):
    return [float(len(turns[0]["content"])) for turns in completions]


async def waits(completions, hint, **kwargs):
    await asyncio.sleep(0.01)
    return [1.0 if h == "yes" else None for h in hint]


def named_only(prompts, completions, completion_ids, answer):
    return [
        len(p) + len(i) + float(a or 0)
        for p, i, a in zip(prompts, completion_ids, answer, strict=True)
    ]


def needs_more(completions, answer, solution):
    return [0.0] * len(completions)


def raises_on_boom(completions, **kwargs):
    if any("boom" in turns[0]["content"] for turns in completions):
        raise KeyError("boom")
    return [1.0] * len(completions)


def hangs_on_boom(completions, **kwargs):
    if any("boom" in turns[0]["content"] for turns in completions):
        time.sleep(600)
    return [1.0] * len(completions)


def dies_on_boom(completions, **kwargs):
    import os

    if any("boom" in turns[0]["content"] for turns in completions):
        os._exit(3)
    return [1.0] * len(completions)


def one_per_text(completions, **kwargs):
    """Forgets that texts may be equal."""
    return [2.0] * len({turns[0]["content"] for turns in completions})


def share_of_group(completions, **kwargs):
    """Compares the completions of a prompt."""
    raises_on_boom(completions)
    lengths = [len(turns[0]["content"]) for turns in completions]
    return [length / sum(lengths) for length in lengths]


def hangs(completions, **kwargs):
    time.sleep(600)


def nan_for_second(completions, **kwargs):
    return [1.0, float("nan"), 1.0][: len(completions)]


def one_short(completions, **kwargs):
    return [1.0] * (len(completions) - 1)


def not_a_list(completions, **kwargs):
    return 1.0


def words(completions, **kwargs):
    return ["good"] * len(completions)


def never_applies(completions, **kwargs):
    return [None] * len(completions)


def dies(completions, **kwargs):
    import os

    os._exit(3)


def counts_calls(completions, **kwargs):
    """Keeps its state from call to call."""
    print("this does not disturb the answer")
    CALLS.append(1)
    return [float(len(CALLS))] * len(completions)


not_callable = 3


def image_sizes(images, **kwargs):
    return [float(sum(image.width for image in some)) for some in images]


def any_images(completions, **kwargs):
    assert "image" not in kwargs
    assert kwargs["trainer_state"].max_steps == 9
    same = kwargs["images"][0] is kwargs["images"][1]
    return [float(len(some)) + 10 * same for some in kwargs["images"]]


def lone_image(image):
    return [
        0.0 if i is None else float(i.height) if not isinstance(i, list) else -1.0 for i in image
    ]


def by_progress(completions, trainer_state):
    return [trainer_state.global_step / trainer_state.max_steps] * len(completions)


def no_images(completions, answer):
    return [1.0] * len(completions)


def logs(completions, log_metric):
    return [0.0] * len(completions)


def wants_messages(completions, messages):
    return [0.0] * len(completions)


def images_or_boom(completions, images, trainer_state):
    raises_on_boom(completions)
    return [float(len(some)) + trainer_state.global_step for some in images]


def per_token(completion_ids, **kwargs):
    """None for the first completion, a number for the second, lists for the others."""
    return [None, 0.5, *[[float(i) for i in ids] for ids in completion_ids[2:]]]


def one_token_short(completion_ids, **kwargs):
    return [[1.0] * len(completion_ids[0]), [1.0], (1.0,)]


def a_token_nan(completion_ids, **kwargs):
    return [[], [1.0], [1.0, float("nan")]]


def a_token_missing(completion_ids, **kwargs):
    return [[], [1.0], [1.0, None]]


def an_array(completion_ids, **kwargs):
    return [[], [1.0], np.ones(len(completion_ids[2]))]
