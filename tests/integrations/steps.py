"""Steps of transformers' Trainer with AGTO, and the gradients that the optimizer gets."""

import dataclasses

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from avar_fast.attention import SpecialTokens
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.integrations import AgtoMixin
from avar_fast.lab.model import build_image_processor

from .clients import SYSTEM, TOKENIZER, gradients

TOKENS = SpecialTokens.from_processor(TOKENIZER)


class AgtoTrainer(AgtoMixin, Trainer):
    pass


class KeepGradients(TrainerCallback):
    """Keeps the gradients of each step, as the optimizer gets them."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **others):
        self.steps.append(gradients(model))


def samples_of(rows_file, count):
    """Samples of different length; two have no image and so no AGTO."""
    encode = Encoder(TOKENIZER, build_image_processor(), SYSTEM, 1000)
    rows = load_rows(str(rows_file))
    made = [encode(rows[i]) for i in range(count)]
    for i in {1, 4} & set(range(count)):
        kept = ~torch.isin(made[i].prompt_ids, torch.tensor(TOKENS.visual))
        made[i] = dataclasses.replace(
            made[i], prompt_ids=made[i].prompt_ids[kept], pixel_values=None, image_grid_thw=None
        )
    return made


def inputs_of(samples):
    batch = collate(samples, TOKENIZER.pad_token_id, TOKENS.visual)
    return {**batch.inputs, "labels": batch.labels}


def trainer_of(
    model, samples, folder, accumulation, *, agto=None, mean_of_means=False, keys=None, **options
):
    """A trainer, and the gradients that it keeps; ``keys`` are AGTO's ``visual`` and ``system``."""
    kept = KeepGradients()
    arguments = {
        "output_dir": str(folder), "num_train_epochs": 1, "max_grad_norm": 1e9,
        "per_device_train_batch_size": -(-len(samples) // accumulation),
        "gradient_accumulation_steps": accumulation, "logging_steps": 1, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "seed": 1,
        "remove_unused_columns": False, "lr_scheduler_type": "constant", "learning_rate": 1e-4,
    }  # fmt: skip
    trainer = AgtoTrainer(
        model=model, args=TrainingArguments(**(arguments | options)), data_collator=inputs_of,
        train_dataset=samples, eval_dataset=samples[:2], callbacks=[kept], agto=agto,
        mean_of_means=mean_of_means, **(keys or {}),
    )  # fmt: skip
    return trainer, kept
