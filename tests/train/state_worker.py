"""Run by test_resume: resumes a run, takes no step, and prints what it would go on with.

argv: a recipe and its overrides.
"""

import json
import sys

from avar_fast.config import load_recipe
from avar_fast.train.setup import prepare


def main() -> None:
    run = prepare(load_recipe(sys.argv[1], sys.argv[2:]), resume=True)
    optimizer = run.engine.deepspeed.optimizer
    clip = (
        optimizer.clip_grad
        if hasattr(optimizer, "clip_grad")
        else run.engine.deepspeed.gradient_clipping()
    )
    state = {
        "groups": run.engine.group_settings(),
        "lr": run.engine.deepspeed.get_lr(),
        "clip": clip,
        "units": run.feed.stream.units(run.first_step),
    }
    print("STATE", json.dumps(state))


main()
