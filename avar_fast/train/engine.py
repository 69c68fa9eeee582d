"""The DeepSpeed engine of a run: its JSON is generated from the recipe, nothing is written by
hand."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..attention import split_sequence
from ..config import Recipe
from .parameters import optimizer_groups
from .sequence_parallel import SequenceParallel


def init_distributed() -> tuple[int, int, torch.device]:
    """Joins the process group torchrun describes, or makes one of a single process.

    Returns:
        rank, world size and this process's device.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it had to guess
        if os.access(sys.prefix, os.W_OK):
            # DeepSpeed compiles an operator here. In the folder that all environments share by
            # default they rebuild it over each other, and a killed build's lock stops all of them.
            folder = os.path.join(sys.prefix, "torch_extensions")
            os.environ.setdefault("TORCH_EXTENSIONS_DIR", folder)
    import deepspeed

    for name, value in (
        ("RANK", "0"),
        ("LOCAL_RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "0"),
    ):
        os.environ.setdefault(name, value)
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        device, backend = torch.device("cuda", local_rank), "nccl"
    else:
        device, backend = torch.device("cpu"), "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), device


def deepspeed_config(recipe: Recipe, micro_steps: int, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's JSON for a recipe.

    Args:
        micro_steps: forwards per optimizer step on each rank.
        universal: checkpoints are loaded in their universal form.
    """
    engine, dtype = recipe.engine, recipe.model.dtype
    zero: dict[str, Any] = {
        "stage": engine.zero_stage,
        "stage3_gather_16bit_weights_on_model_save": engine.zero_stage == 3,
    }
    if engine.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if engine.offload_params:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": recipe.train.micro_batch_size,
        "gradient_accumulation_steps": micro_steps,
        # DeepSpeed's defaults of both changed between releases.
        "gradient_clipping": recipe.optim.max_grad_norm,
        "bf16": {"enabled": dtype == "bfloat16", "check_grad_overflow": False},
        "fp16": {"enabled": dtype == "float16", "loss_scale": 0, "initial_scale_power": 16},
        "zero_optimization": zero,
        # torch's fused AdamW is the optimizer everywhere, offloaded states included.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
        "checkpoint": {"load_universal": universal},
    }


class Engine:
    """One model under training: forward, backward with a global divisor, optimizer step.

    Args:
        model: on its device, attached.
        recipe: the run.
        micro_steps: forwards per optimizer step on each rank.
        num_steps: optimizer steps of the whole run, for the schedule.
        universal: it goes on from a checkpoint in its universal form.
        sequence: how ranks share rows, None where each has rows of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        micro_steps: int,
        num_steps: int,
        universal: bool = False,
        sequence: SequenceParallel | None = None,
    ) -> None:
        import deepspeed

        optim = recipe.optim
        self.device = next(model.parameters()).device
        if recipe.model.dtype == "float16" and self.device.type == "cpu":
            raise ValueError(
                "model.dtype float16 needs a GPU; DeepSpeed does not train in it on a CPU. Use"
                " float32 or bfloat16."
            )
        optimizer = torch.optim.AdamW(
            optimizer_groups(model, recipe), lr=optim.lr, betas=optim.betas, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, num_steps, optim.warmup_steps, optim.schedule)
        )
        self.recipe, self.micro_steps, self.universal = recipe, micro_steps, universal
        self.optimizer, self.schedule = optimizer, schedule
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            lr_scheduler=schedule,  # pyright: ignore[reportArgumentType]
            config=deepspeed_config(recipe, micro_steps, universal),
        )
        self.module: Any = self.deepspeed.module
        self.world_size = torch.distributed.get_world_size()
        self.sequence = sequence
        self.ranks_per_row = 1 if sequence is None else sequence.size

    def __call__(self, **inputs: Any) -> Any:
        return self.deepspeed(**inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradient of one micro-batch's share of the step's loss.

        ``loss`` is already divided by the step's global count (tokens, samples); DeepSpeed divides
        by micro-steps and ranks once more, which is undone here. So the step's gradient is that of
        the sum over micro-batches and ranks, whatever their number.
        """
        self.deepspeed.backward(loss * (self.micro_steps * self.world_size))
        if not self.deepspeed.is_gradient_accumulation_boundary():
            self.deepspeed.step()

    def step(self) -> float:
        """Moves the weights after the last micro-batch; returns the gradient norm, unclipped.

        0 in float16 where the scaled gradients overflowed: DeepSpeed then lowers the scale and
        leaves the weights as they are.
        """
        norm = 0.0
        if self.recipe.engine.zero_stage == 0:  # where DeepSpeed reports none
            grads = [p.grad for p in self.module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads).item()
        self.deepspeed.step()
        if self.recipe.model.dtype == "float16" and not self.deepspeed.was_step_applied():
            return 0.0
        reported = self.deepspeed.get_global_grad_norm()
        return norm if reported is None else float(reported)

    @contextmanager
    def whole_weights(self) -> Iterator[nn.Module]:
        """The bare model with all its weights on this device, for forwards without gradient that
        are this rank's alone: generation and evaluation. All ranks enter and leave together."""
        split_sequence(self.module, None)
        try:
            with self._gathered():
                yield self.module
        finally:
            split_sequence(self.module, self.sequence)

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """ZeRO-3 gathers the weights once and takes its hooks off: they would gather each layer at
        each token, and wait for ranks that have ended."""
        if self.recipe.engine.zero_stage < 3:
            yield
            return
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        offload = cast(Any, self.deepspeed.optimizer).parameter_offload
        with GatheredParameters(list(self.module.parameters())):
            offload._remove_module_hooks()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload.setup_zero_stage3_hooks()

    @property
    def num_updates(self) -> int:
        """Steps of the schedule so far."""
        return self.schedule.last_epoch

    @property
    def lr(self) -> float:
        return self.deepspeed.get_lr()[0]

    def group_settings(self) -> list[dict[str, Any]]:
        """Rates, decay and the like of every parameter group."""
        groups = self.optimizer.param_groups
        return [{k: v for k, v in group.items() if k != "params"} for group in groups]

    def keep_settings(self, settings: list[dict[str, Any]]) -> None:
        """Puts back the recipe's settings after a checkpoint was loaded, which brings its own:
        rates, decay and betas of every group, peaks of the schedule, and the bound of the norm.

        DeepSpeed's loader of ZeRO 3 also gives all groups of a universal checkpoint the settings of
        the first and one shared count of steps, which each then raises.

        Args:
            settings: ``group_settings`` from before the load.
        """
        schedule: Any = self.schedule
        schedule.base_lrs = [own["initial_lr"] for own in settings]
        factor = schedule.lr_lambdas[0](schedule.last_epoch)
        rates = [peak * factor for peak in schedule.base_lrs]
        for group, own, lr in zip(self.optimizer.param_groups, settings, rates, strict=True):
            group.update(own | {"lr": lr})
        schedule._last_lr = rates
        if hasattr(self.deepspeed.optimizer, "clip_grad"):
            cast(Any, self.deepspeed.optimizer).clip_grad = self.recipe.optim.max_grad_norm
        if self.universal:
            for state in self.optimizer.state.values():
                state["step"] = torch.as_tensor(state["step"]).clone()

    def sum_over_ranks(self, *values: Tensor | float) -> list[float]:
        """Each value summed over all ranks, in one collective."""
        packed = torch.tensor([float(v) for v in values], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(packed)
        return packed.tolist()

    def sum_over_rows(self, *values: Tensor | float) -> list[float]:
        """Each value, a count of this rank's rows, summed over all rows: ranks that share rows
        count once."""
        return [value / self.ranks_per_row for value in self.sum_over_ranks(*values)]


def lr_factor(step: int, num_steps: int, warmup_steps: int, schedule: str) -> float:
    """Learning rate over its peak at a step: linear warm-up, then constant or cosine to a tenth."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = min((step - warmup_steps) / max(num_steps - warmup_steps, 1), 1.0)
    return 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress))
