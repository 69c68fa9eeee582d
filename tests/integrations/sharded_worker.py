"""Run by test_agto on each of two ranks: one step of a Trainer with AGTO, its weights sharded.

argv: the file of rows, the folder for what rank 0 keeps, and "zero-2", "zero-3" or "fsdp". The step
is one of plain gradient descent at learning rate 1, so what it takes off a weight is the gradient.
"""

import contextlib
import os
import sys
from pathlib import Path

import torch

from .clients import end_rank, tiny_model
from .steps import samples_of, trainer_of


def settings_of(kind: str) -> dict:
    if kind == "fsdp":
        wrapped = {"transformer_layer_cls_to_wrap": ["Qwen2_5_VLDecoderLayer"]}
        return {"fsdp": "full_shard auto_wrap", "fsdp_config": wrapped | {"version": 2}}
    config = {
        "zero_optimization": {"stage": int(kind[-1])}, "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }  # fmt: skip
    return {"deepspeed": config}


def weights(model) -> dict[str, torch.Tensor]:
    """Whole copies of the trained weights."""
    found = {}
    for name, weight in model.named_parameters():
        gathered = contextlib.nullcontext()
        if hasattr(weight, "ds_id"):
            import deepspeed

            gathered = deepspeed.zero.GatheredParameters([weight])
        with gathered:
            whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            found[name.removeprefix("module.")] = whole.detach().clone()
    return found


def main() -> None:
    samples, folder, kind = samples_of(Path(sys.argv[1]), 8), Path(sys.argv[2]), sys.argv[3]
    options = {
        "per_device_train_batch_size": 2, "ddp_backend": "gloo", "optim": "sgd",
        "learning_rate": 1.0, "max_grad_norm": 1e9,
    }  # fmt: skip
    model = tiny_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer, _ = trainer_of(model, samples, folder, 2, **options, **settings_of(kind))
    trainer.train()
    after = weights(trainer.model_wrapped if kind == "fsdp" else trainer.model)
    if os.environ["RANK"] == "0":
        steps = {name: weight - after[name] for name, weight in before.items()}
        torch.save(steps, folder / "gradients.pt")
    end_rank()


main()
