"""avar_fast's trainer as a child of ``turns``: python -m bench.grpo_step.ours SETTINGS."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from avar_fast.config.recipe_file import load_recipe
from avar_fast.rollout import Rollouts, Sampling
from avar_fast.train.__main__ import train
from avar_fast.train.grpo import loop
from avar_fast.train.setup import prepare

from .turns import forget_peak, peak_mib, say, wait_for_turn
from .world import SYSTEM, fixed_completions


class FixedEngine:
    """Gives the same completions to every trainer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def generate(self, prompts: Any, sampling: Sampling) -> Rollouts:
        rows = fixed_completions(len(prompts), sampling.num_samples, self.settings["new_tokens"])
        longest = max(map(len, rows))
        ids = torch.tensor([row + [sampling.pad_id] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return Rollouts(ids, torch.arange(longest) < lengths[:, None])

    def sync_weights(self, model: Any) -> None:
        pass

    sleep = wake = close = lambda self: None


def recipe_of(settings: dict[str, Any]) -> dict[str, Any]:
    rewards = {"bench.grpo_step.reward:residue": 1.0}
    if settings["visual"]:
        rewards["visual"] = 0.3
    return {
        "stage": "grpo",
        "model": {"path": settings["model"], "dtype": "float32"},
        "data": {
            "path": settings["rows"] + "/train.jsonl", "max_length": 4096, "shuffle": False,
            "workers": 0, "system_prompt": SYSTEM,
        },
        "train": {
            "output_dir": settings["output"], "steps": 1000, "batch_size": settings["prompts"],
            "micro_batch_size": settings["micro_batch"],
        },
        "optim": {"lr": 1e-5, "schedule": "constant", "warmup_steps": 0, "max_grad_norm": 1e9},
        "engine": {"zero_stage": 0},
        "tracking": {"show_every": 0, "visual_share": False},  # VARS records by itself
        "grpo": {
            "group_size": settings["group"], "max_new_tokens": settings["new_tokens"],
            "prompts_per_generation": settings["prompts"], "rewards": rewards,
            "visual_form": "share", "reward_processes": 1, **settings.get("grpo", {}),
        },
        "agto": {"enabled": False},
    }  # fmt: skip


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    recipe = Path(settings["output"] + ".yaml")
    recipe.write_text(json.dumps(recipe_of(settings)))  # which is YAML
    run = prepare(load_recipe(recipe), resume=False)
    peak = {}
    update = loop._update

    def measured_update(*arguments: Any) -> Any:
        peak["rollout"] = peak_mib()
        forget_peak()
        metrics = update(*arguments)
        peak["update"] = peak_mib()
        return metrics

    def log(step: int, metrics: Mapping[str, Any], shown: tuple[str, ...] = ()) -> None:
        names = "generation", "reward", "scoring", "update"
        parts = {name: metrics.get(f"{name}_seconds") or 0.0 for name in names}
        completed = (metrics["completion_tokens"] or 0) * settings["prompts"] * settings["group"]
        say(
            parts=parts, grad_norm=metrics["grad_norm"], tokens=completed, peak_mib=peak,
            prompt_tokens_shared=metrics.get("prompt_tokens_shared"),
        )  # fmt: skip
        wait_for_turn()

    loop._update = measured_update
    run.tracker.log = log
    if settings.get("fixed"):
        loop.open_rollout = lambda run: FixedEngine(settings)
    say(ready=True)
    wait_for_turn()
    train(run)


if __name__ == "__main__":
    main()
