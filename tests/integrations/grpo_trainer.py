"""TRL's GRPOTrainer on the lab's model, for tests and their workers."""

import datasets
import trl

from .clients import processor, tiny_model

GROUP, NEW_TOKENS = 3, 8


def odd(prompts, completions, completion_ids, **columns):
    """Right are completions whose ids have an odd sum."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def trainer_of(folder, rows, rewards, rollout_func, model=None, **options):
    data = datasets.Dataset.from_list(
        [{k: v for k, v in r.items() if k != "completion"} for r in rows]
    )
    if "images" in data.column_names:
        data = data.cast_column("images", datasets.Sequence(datasets.Image()))
    arguments = {
        "output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": GROUP,
        "gradient_accumulation_steps": 2, "num_generations": GROUP, "learning_rate": 1e-3,
        "max_completion_length": NEW_TOKENS, "temperature": 1.3, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "bf16": False, "seed": 0,
        "logging_steps": 1, "shuffle_dataset": False,
    }  # fmt: skip
    return trl.GRPOTrainer(
        model=model or tiny_model(), reward_funcs=rewards, train_dataset=data,
        args=trl.GRPOConfig(**(arguments | options)), processing_class=processor(),
        rollout_func=rollout_func,
    )  # fmt: skip
