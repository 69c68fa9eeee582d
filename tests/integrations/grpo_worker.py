"""Run by test_trl_grpo on each of two ranks: one step of GRPO with VARS, in DDP.

argv: the file of rows, and the folder for what each rank saw.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from avar_fast.integrations.trl import rollout, vars_reward

from .clients import conversations, end_rank
from .grpo_trainer import odd, trainer_of
from .steps import KeepGradients


class KeepLogs(TrainerCallback):
    def on_log(self, args, state, control, logs, **others):
        self.logs = getattr(self, "logs", logs)


def main() -> None:
    seen = {}

    def watching(prompts, completions, completion_ids, **columns):
        seen["prompts"] = [prompt[1]["content"][-1]["text"] for prompt in prompts]
        seen["completions"] = completion_ids
        return odd(prompts, completions, completion_ids)

    options = {
        "max_steps": 1, "num_generations": 4, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2, "ddp_backend": "gloo",
    }  # fmt: skip
    rewards = [watching, vars_reward(odd)]
    folder, rank = Path(sys.argv[2]), os.environ["RANK"]
    trainer = trainer_of(folder, conversations(Path(sys.argv[1])), rewards, rollout(), **options)
    kept, logged = KeepGradients(), KeepLogs()
    trainer.add_callback(kept)
    trainer.add_callback(logged)
    trainer.train()
    seen["norm"] = torch.nn.utils.get_total_norm(kept.steps[0].values()).item()
    seen["vars"] = logged.logs["rewards/vars/mean"]
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    end_rank()


main()
