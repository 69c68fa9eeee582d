"""The section ``engine``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import named_values, require_positive


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How DeepSpeed spreads the model and its rows over ranks and host memory."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed's ZeRO stage: what is split over the ranks. 0 splits nothing, 1 the optimizer
    states, 2 also the gradients, 3 also the weights."""
    offload_optimizer: bool = False
    """Keep optimizer states and float32 master weights in host memory. Needs ``engine.zero_stage``
    1 or more."""
    offload_params: bool = False
    """Keep weights in host memory between uses. Needs ``engine.zero_stage`` 3."""
    sequence_parallel: int = 1
    """Ranks that share the tokens of each row (DeepSpeed-Ulysses), for long rows. Must divide the
    number of ranks and of attention heads. Stage sft only."""

    def __post_init__(self) -> None:
        require_positive(named_values("engine", self, "sequence_parallel"))
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("engine.offload_optimizer needs engine.zero_stage 1 or more; got 0.")
        if self.offload_params and self.zero_stage != 3:
            raise ValueError(
                f"engine.offload_params needs engine.zero_stage=3; got {self.zero_stage}."
            )
