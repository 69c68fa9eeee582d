"""The section ``optim``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import (
    named_values,
    require_below_one,
    require_not_negative,
    require_positive,
    require_within,
)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and the schedule of its learning rate."""

    lr: float = 1e-5
    """Peak learning rate. AVAR's released recipe has 1e-5 for SFT; the paper has 1e-6 for GRPO."""
    vision_lr: float | None = None
    """Peak learning rate of the vision tower. Null takes ``optim.lr``."""
    projector_lr: float | None = None
    """Peak learning rate of the projector. Null takes ``optim.lr``."""
    weight_decay: float = 0.0
    """Weight decay of matrices. Biases and norms have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the running means of the gradient and of its square."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly to its peak."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up. ``cosine`` falls to a tenth of the peak by the end of the
    run."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to this norm. 0 turns clipping off."""

    def __post_init__(self) -> None:
        not_negative = "weight_decay", "warmup_steps", "max_grad_norm"
        require_positive(named_values("optim", self, "lr", "vision_lr", "projector_lr"))
        require_not_negative(named_values("optim", self, *not_negative))
        require_within({"optim.weight_decay": (self.weight_decay, 0, 1e5)})
        require_below_one({f"optim.betas[{i}]": beta for i, beta in enumerate(self.betas)})
