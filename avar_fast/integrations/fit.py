"""Refuses trainers whose settings AGTO does not fit."""

import inspect
from typing import Any

from ..models.decoders import unwrapped


def require_fit(trainer: Any) -> None:
    """Raises ValueError if AGTO would be wrong with the trainer's settings."""
    args = trainer.args
    checkpointing = getattr(args, "gradient_checkpointing_kwargs", None) or {}
    if args.gradient_checkpointing and checkpointing.get("use_reentrant"):
        raise ValueError(
            "gradient_checkpointing_kwargs must have use_reentrant=False with AGTO, as reentrant"
            " checkpointing loses the gradient of recorded attention; got True. TRL sets it itself"
            " for PEFT with ZeRO-3: use ZeRO-2, or gradient_checkpointing=False."
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"AGTO works with one GPU per process; got n_gpu = {args.n_gpu} (nn.DataParallel)."
            " Launch with torchrun or accelerate launch."
        )
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    if parallelism is not None and parallelism.non_data_parallel_size > 1:
        raise ValueError(
            "AGTO needs whole samples on each rank; got"
            f" {parallelism.non_data_parallel_size} ranks per sample in parallelism_config (tensor,"
            " context or sequence parallelism). Use data parallelism alone."
        )


def require_token_mean(trainer: Any) -> None:
    """Raises ValueError if the model cannot divide its loss by the targets of a step."""
    model = unwrapped(trainer.model)
    parameters = inspect.signature(type(model).forward).parameters.values()
    routes = getattr(model.config.get_text_config(), "output_router_logits", False)
    if routes and not hasattr(trainer, "aux_loss_enabled"):
        reason = "adds a router loss per micro-batch (output_router_logits)"
    elif not any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters):
        reason = "takes no num_items_in_batch"
    else:
        return
    raise ValueError(
        f"mean_of_means must be True for this model: {type(model).__name__} {reason}, so its loss"
        " is no mean over the targets of a step."
    )
