"""Run by test_engine and test_universal under torchrun: several short runs in one process per rank.

argv: "start" or "resume", and a JSON list of recipes; each is trained to its end.
"""

import json
import sys

from avar_fast.config import load_recipe
from avar_fast.train.grpo.loop import run_grpo
from avar_fast.train.setup import prepare
from avar_fast.train.sft import run_sft


def main() -> None:
    for path in json.loads(sys.argv[2]):
        run = prepare(load_recipe(path), resume=sys.argv[1] == "resume")
        if run.recipe.stage == "sft":
            run_sft(run)
        else:
            run_grpo(run)
        run.tracker.close()
        run.engine.deepspeed.destroy()


main()
