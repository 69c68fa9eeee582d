"""The section ``tracking``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import named_values, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """What a run writes about itself."""

    log_every: int = 1
    """Steps between lines of ``log.jsonl``, TensorBoard and W&B. The last step is always logged."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Loggers besides ``log.jsonl``, which is always written."""
    show_every: int = 50
    """Steps between tables of completions on the terminal in stage grpo. 0 shows none. The file
    ``completions.jsonl`` holds all completions in any case."""
    show_count: int = 4
    """Completions in a table of ``tracking.show_every``. 0 shows none."""
    visual_share: bool = True
    """Record in stage grpo where completions look, for ``visual_share`` in the log, also without
    VARS. VARS records it in any case, and stage sft always has VAS."""
    peak_tflops: float | None = None
    """Peak TFLOP/s of one device in the run's dtype; MFU is a share of it. Null takes the data
    sheet's value of a known GPU for half precision; elsewhere MFU is then null. To measure it, time
    a large ``torch.matmul``."""

    def __post_init__(self) -> None:
        require_positive(named_values("tracking", self, "log_every", "peak_tflops"))
        require_not_negative(named_values("tracking", self, "show_every", "show_count"))
