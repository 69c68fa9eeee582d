"""The DeepSpeed engine of a run. Its configuration is generated from the recipe."""

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
    """Joins the process group that torchrun describes, or creates one with a single process.

    Returns:
        Rank, world size and device of this process.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it had to guess
        if os.access(sys.prefix, os.W_OK):
            # DeepSpeed compiles an operator into this folder. All environments share the default
            # folder: there they overwrite each other's build, and a killed build leaves a lock
            # that blocks all of them.
            folder = os.path.join(sys.prefix, "torch_extensions")
            os.environ.setdefault("TORCH_EXTENSIONS_DIR", folder)
    _prefer_own_ninja()
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


def _prefer_own_ninja() -> None:
    """Puts this environment's ninja first in PATH, where an environment that is not activated has
    another. A ninja builds anew what one of another version has built, which takes half a minute
    each time that the two take turns."""
    programs = os.path.dirname(sys.executable)
    if os.path.exists(os.path.join(programs, "ninja")):
        os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])


def deepspeed_config(recipe: Recipe, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration for a recipe.

    Args:
        recipe: the recipe of the run.
        universal: load checkpoints in their universal form.
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
        # Not the number of micro-batches, which may differ by step: ``Engine.backward`` tells
        # DeepSpeed which one is a step's last.
        "gradient_accumulation_steps": 1,
        # Both are always set: DeepSpeed's defaults have changed between releases.
        "gradient_clipping": recipe.optim.max_grad_norm,
        "bf16": {"enabled": dtype == "bfloat16", "check_grad_overflow": False},
        "fp16": {"enabled": dtype == "float16", "loss_scale": 0, "initial_scale_power": 16},
        "zero_optimization": zero,
        # torch's fused AdamW is always the optimizer, also for offloaded states.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
        "checkpoint": {"load_universal": universal},
    }


class Engine:
    """A model in training: forward, backward with a global divisor, optimizer step.

    Args:
        model: the model, on its device and with this project's attention attached.
        recipe: the recipe of the run.
        num_steps: optimizer steps of the whole run, for the schedule.
        universal: the run resumes from a checkpoint in its universal form.
        sequence: how ranks share rows; None if each rank has its own rows.

    Raises:
        ValueError: model.dtype is float16 and the model is on the CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
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
        self.recipe, self.universal = recipe, universal
        self.optimizer, self.schedule = optimizer, schedule
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            lr_scheduler=schedule,  # pyright: ignore[reportArgumentType]
            config=deepspeed_config(recipe, universal),
        )
        self.module: Any = self.deepspeed.module
        self.world_size = torch.distributed.get_world_size()
        self.sequence = sequence
        self.ranks_per_row = 1 if sequence is None else sequence.size

    def __call__(self, **inputs: Any) -> Any:
        return self.deepspeed(**inputs)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulates the gradient of one micro-batch's share of the step's loss.

        The caller has already divided ``loss`` by the step's global count (tokens or samples).
        DeepSpeed also divides by the ranks; this method undoes that. So the gradient of the step is
        that of the sum over micro-batches and ranks, for any number of them. All ranks must have
        the same number, see ``most_over_ranks``.

        Args:
            loss: scalar with gradient.
            last: whether this is the step's last micro-batch.
        """
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss * self.world_size)

    def step(self) -> Tensor:
        """Updates the weights after the last micro-batch.

        Returns:
            The gradient norm before clipping, a float64 scalar on the device. It is 0 if scaled
            float16 gradients overflowed: DeepSpeed then lowers the scale and does not change the
            weights.
        """
        norm: Tensor | float = 0.0
        if self.recipe.engine.zero_stage == 0:  # DeepSpeed reports no norm at ZeRO 0
            grads = [p.grad for p in self.module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
        self.deepspeed.step()
        if self.recipe.model.dtype == "float16" and not self.deepspeed.was_step_applied():
            norm = 0.0
        elif (reported := self.deepspeed.get_global_grad_norm()) is not None:
            norm = reported
        if isinstance(norm, Tensor):
            return norm.detach().to(self.device, torch.float64)
        return torch.full((), norm, dtype=torch.float64, device=self.device)

    @contextmanager
    def whole_weights(self) -> Iterator[nn.Module]:
        """Yields the bare model with all its weights on this device.

        Each rank may then run its own forwards without gradient, as in generation and evaluation.
        All ranks enter and leave the context together.
        """
        split_sequence(self.module, None)
        try:
            with self._gathered():
                yield self.module
        finally:
            split_sequence(self.module, self.sequence)

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """Gathers ZeRO-3's shards once and removes its hooks. The hooks would gather every layer at
        every token, and wait for ranks that have already finished."""
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
        """Steps that the learning rate schedule has taken."""
        return self.schedule.last_epoch

    @property
    def lr(self) -> float:
        """The current learning rate of the language model."""
        return self.deepspeed.get_lr()[0]

    def group_settings(self) -> list[dict[str, Any]]:
        """The settings of every parameter group: learning rate, weight decay, betas and so on."""
        groups = self.optimizer.param_groups
        return [{k: v for k, v in group.items() if k != "params"} for group in groups]

    def keep_settings(self, settings: list[dict[str, Any]]) -> None:
        """Restores the recipe's settings after a checkpoint was loaded.

        A checkpoint overwrites them with its own: learning rates, weight decay and betas of every
        group, the peaks of the schedule, and the largest gradient norm. From a universal checkpoint
        under ZeRO-3, DeepSpeed also gives all groups the settings of the first group, and all
        parameters one shared step counter, which every parameter would then increment.

        Args:
            settings: result of ``group_settings`` from before the load.
        """
        schedule: Any = self.schedule
        schedule.base_lrs = [group_settings["initial_lr"] for group_settings in settings]
        factor = schedule.lr_lambdas[0](schedule.last_epoch)
        rates = [peak * factor for peak in schedule.base_lrs]
        groups = self.optimizer.param_groups
        for group, group_settings, lr in zip(groups, settings, rates, strict=True):
            group.update(group_settings | {"lr": lr})
        schedule._last_lr = rates
        if hasattr(self.deepspeed.optimizer, "clip_grad"):
            cast(Any, self.deepspeed.optimizer).clip_grad = self.recipe.optim.max_grad_norm
        if self.universal:
            for state in self.optimizer.state.values():
                state["step"] = torch.as_tensor(state["step"]).clone()

    def sum_over_ranks(self, *values: Tensor | float) -> list[float]:
        """Sums each value over all ranks, in one collective."""
        packed = torch.tensor([float(v) for v in values], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(packed)
        return packed.tolist()

    def most_over_ranks(self, count: int) -> int:
        """The largest of all ranks' counts.

        Ranks that shard weights or reduce gradients within a backward wait for one another in every
        forward and backward, so all of them must run equally many.
        """
        most = torch.tensor(count, device=self.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def sum_tensor_over_ranks(self, values: Tensor) -> Tensor:
        """Sums a tensor on the device over all ranks, in place; the host does not wait for it."""
        torch.distributed.all_reduce(values)
        return values

    def sum_over_rows(self, *values: Tensor | float) -> list[float]:
        """Sums each value, a count over this rank's rows, over all rows. Ranks that share rows
        count once."""
        return [value / self.ranks_per_row for value in self.sum_over_ranks(*values)]


def lr_factor(step: int, num_steps: int, warmup_steps: int, schedule: str) -> float:
    """The learning rate at a step as a fraction of its peak: linear warm-up, then constant or a
    cosine down to one tenth."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = min((step - warmup_steps) / max(num_steps - warmup_steps, 1), 1.0)
    return 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress))
