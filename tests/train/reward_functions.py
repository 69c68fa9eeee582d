"""Reward functions of the tests of stage grpo."""

import os
import time
from pathlib import Path

CALLS = []


def by_letter(prompts, completions, completion_ids, answer, **kwargs):
    """Differs within nearly every group."""
    assert isinstance(prompts[0][0]["content"], list)
    assert all(isinstance(a, str) for a in answer)
    return [float(sum(ids) % 7) for ids in completion_ids]


def num_images(images, trainer_state):
    """Of groups of two."""
    assert all(image.mode == "RGB" for some in images for image in some)
    assert all(images[i] is images[i + 1] for i in range(0, len(images), 2))
    return [len(some) + trainer_state.global_step / trainer_state.max_steps for some in images]


def hangs_from_the_second_step(completions, **kwargs):
    """Also in a process that took the place of another."""
    called = Path(os.environ["CALLED_FOLDER"]) / str(os.getppid())
    if called.exists():
        time.sleep(600)
    called.touch()
    return [1.0] * len(completions)


def equal_in_the_first_step(completion_ids, **kwargs):
    CALLS.append(1)
    return [0.0 if len(CALLS) == 1 else float(sum(ids) % 7) for ids in completion_ids]


def sometimes_equal(completion_ids, **kwargs):
    return [float(ids[0] % 2) for ids in completion_ids]


def raises_now_and_then(completion_ids, **kwargs):
    if any(ids[0] % 2 for ids in completion_ids):
        raise ValueError("an odd one")
    return [1.0] * len(completion_ids)


def even_tokens(completion_ids, **kwargs):
    """One number per token."""
    return [[float(i % 2 == 0) for i in ids] for ids in completion_ids]


def ones(completion_ids, **kwargs):
    return [[1.0] * len(ids) for ids in completion_ids]
