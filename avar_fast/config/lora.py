"""The section ``lora``."""

from dataclasses import dataclass

from .ranges import (
    LARGEST_WEIGHT,
    named_values,
    require_below_one,
    require_positive,
    require_within,
)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv 2106.09685) on the linear layers of the text tower."""

    enabled: bool = False
    """Train adapters instead of the weights. Checkpoints then hold the adapters alone and name the
    model they belong to."""
    rank: int = 64
    """Rank of new adapters; 64 is a usual value. Adapters already in ``model.path`` keep their own
    rank, alpha, dropout and targets."""
    alpha: float = 128.0
    """Scale of new adapters: the product of an adapter's two matrices is multiplied by
    ``lora.alpha / lora.rank``."""
    dropout: float = 0.0
    """Probability that an input of a new adapter is set to 0 in training."""
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Names of the linear layers of the text tower that get an adapter. The default is all of
    them."""

    def __post_init__(self) -> None:
        require_positive(named_values("lora", self, "rank", "alpha"))
        require_within({"lora.alpha": (self.alpha, 0, LARGEST_WEIGHT)})
        require_below_one(named_values("lora", self, "dropout"))
        if self.enabled and not self.targets:
            raise ValueError("lora.targets must name a layer with lora.enabled; got none.")
