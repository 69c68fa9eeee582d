"""The recipe: every setting of a training run, and the rules that span its sections."""

from dataclasses import dataclass, field
from typing import Literal

from .agto import AgtoConfig
from .data import DataConfig
from .engine import EngineConfig
from .eval import EvalConfig
from .grpo import VISUAL, GrpoConfig
from .lora import LoraConfig
from .model import ModelConfig
from .optim import OptimConfig
from .rollout import RolloutConfig
from .tracking import TrackingConfig
from .train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe of ``python -m avar_fast.train``."""

    stage: Literal["sft", "grpo"]
    """``sft`` trains on the answers of the rows, ``grpo`` on the rewards of sampled completions."""
    model: ModelConfig
    """The model that is trained."""
    data: DataConfig
    """The rows to train on."""
    train: TrainConfig
    """Length of the run, batches and checkpoints."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adapters (LoRA)."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """How DeepSpeed spreads the model over ranks and host memory."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Logs of the run."""
    agto: AgtoConfig = field(default_factory=AgtoConfig)
    """AVAR's training objective on attention."""
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    """Sampling, rewards and policy loss of stage grpo."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """The engine that samples completions in stage grpo."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation during training."""

    def __post_init__(self) -> None:
        _check_stage(self)
        _check_packing(self)
        _check_micro_batches(self)
        if self.lora.enabled and self.model.freeze:
            raise ValueError(
                "model.freeze must be empty with lora.enabled, which trains adapters of the text"
                f" tower alone; got {list(self.model.freeze)}."
            )
        if self.rollout.engine == "vllm_server" and self.data.overlong == "cut":
            raise ValueError(
                "data.overlong must be error or drop with rollout.engine=vllm_server, which is"
                " sent whole prompts; got cut."
            )
        compares = self.agto.enabled or (self.stage == "grpo" and self.grpo.visual_weight)
        if compares and self.data.system_prompt is None:
            raise ValueError(
                "data.system_prompt must be set where AGTO or VARS is on, they compare image with"
                " system attention; got null. Give a text, or set agto.enabled=false and take"
                f" {VISUAL} out of grpo.rewards."
            )

    @property
    def fields_needed(self) -> Literal["sft", "grpo"] | None:
        """The stage whose fields every row must have; None where the rewards need no answers."""
        return None if self.stage == "grpo" and not self.grpo.needs_answers else self.stage

    @property
    def units_per_step(self) -> int:
        """Rows, or packs, that a step takes from the data over all ranks."""
        rounds = self.grpo.sampling_rounds if self.stage == "grpo" else 1
        return self.train.batch_size * rounds

    @property
    def longest_response(self) -> int:
        """Most tokens of a prompt with one completion in stage grpo."""
        return self.data.max_length + self.grpo.max_new_tokens

    @property
    def micro_batch_capacity(self) -> int | None:
        """Most tokens of a forward on packed completions in stage grpo; None if its size is
        counted in rows."""
        if not self.grpo.shared_prompts:
            return self.train.micro_batch_tokens
        if self.grpo.pack_length is not None:
            return self.grpo.pack_length
        return self.train.micro_batch_size * self.longest_response

    @property
    def num_updates(self) -> int:
        """Optimizer steps of the whole run."""
        updates = self.grpo.updates_per_rollout if self.stage == "grpo" else 1
        return self.train.steps * updates


def _check_stage(recipe: Recipe) -> None:
    if recipe.agto.enabled and recipe.stage != "sft":
        raise ValueError("agto.enabled works in stage sft; got stage grpo. Set agto.enabled=false.")
    if recipe.stage == "grpo" and recipe.engine.sequence_parallel != 1:
        raise ValueError(
            "engine.sequence_parallel must be 1 in stage grpo, whose generation keeps whole"
            f" rows on a rank; got {recipe.engine.sequence_parallel}."
        )


def _check_packing(recipe: Recipe) -> None:
    if recipe.data.packing and recipe.stage != "sft":
        raise ValueError(
            "data.packing works in stage sft; got stage grpo, whose prompts are padded for"
            " generation. Set data.packing=false."
        )
    if recipe.data.packing and recipe.train.micro_batch_size != 1:
        raise ValueError(
            "train.micro_batch_size must be 1 with data.packing, a pack is one row; got"
            f" {recipe.train.micro_batch_size}. Raise data.pack_length instead."
        )


def _check_micro_batches(recipe: Recipe) -> None:
    tokens = recipe.train.micro_batch_tokens
    if tokens is not None and recipe.stage == "sft":
        raise ValueError(
            f"train.micro_batch_tokens works in stage grpo; got {tokens} in stage sft. Set"
            " data.packing=true and data.pack_length instead."
        )
    if tokens is not None and recipe.grpo.shared_prompts:
        raise ValueError(
            f"train.micro_batch_tokens needs grpo.shared_prompts=false; got {tokens} with shared"
            " prompts. Set grpo.pack_length instead."
        )
    if recipe.stage == "grpo":
        for name, value in (
            ("train.micro_batch_tokens", tokens),
            ("grpo.pack_length", recipe.grpo.pack_length),
        ):
            if value is not None and value < recipe.longest_response:
                raise ValueError(
                    f"{name} must be at least data.max_length + grpo.max_new_tokens ="
                    f" {recipe.longest_response}, so that every prompt fits with a completion; got"
                    f" {value}."
                )
