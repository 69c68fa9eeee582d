"""The section ``agto``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import (
    named_values,
    require_below_one,
    require_not_negative,
    require_weights,
    require_within,
)


@dataclass(frozen=True, kw_only=True)
class AgtoConfig:
    """AVAR's training objective on attention (AGTO), added to the loss of stage sft."""

    enabled: bool = False
    """Add the objective to the loss."""
    alpha: float = 0.15
    """Weight of the term that raises attention on image keys. The default is the paper's."""
    beta: float = 0.15
    """Weight of the term that lowers attention on system keys. The default is the paper's."""
    alpha_end: float | None = None
    """Value that ``agto.alpha`` moves to after the warm-up. Null keeps it constant."""
    beta_end: float | None = None
    """Value that ``agto.beta`` moves to after the warm-up. Null keeps it constant."""
    warmup: float = 0.0
    """Share of the run's steps over which both weights rise linearly from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """Curve along which the weights move to ``agto.alpha_end`` and ``agto.beta_end``."""
    decay_fraction: float | None = None
    """Share of the run's steps that this move takes, from the end of the warm-up on. Null takes the
    rest of the run."""
    eps: float = 1e-6
    """Added to the masses before their logarithms. Must not be 0: a row may give no mass to image
    or system keys. The default is that of AVAR's released recipe."""
    eps_in: Literal["both", "suppress"] = "both"
    """Which logarithms have ``agto.eps``. AVAR's released code has it in ``both``, the paper's
    equations in the suppressing term alone (``suppress``), which is infinite for a head that gives
    the image no mass."""
    enhance_keys: Literal["image", "text"] = "image"
    """Keys whose attention the term of ``agto.alpha`` raises. ``text`` is a placebo: the same pull,
    but toward the text of all turns but the system's. It shows whether an effect comes from the
    image."""
    queries: Literal["user", "prompt", "response", "all"] = "user"
    """Which query rows count, of those behind the first image token of their sample: ``user`` is
    the text of user turns, ``prompt`` is user turns with their image tokens, ``response`` is the
    trained assistant turns, ``all`` is every token."""
    layers: tuple[int, ...] | None = None
    """Text layers that count, by their index in the model, from 0. Null takes all that have
    attention."""

    def __post_init__(self) -> None:
        require_not_negative(named_values("agto", self, "eps"))
        # The logarithm of a mass of 0, and its gradient, stay within float32.
        require_within({"agto.eps": (self.eps, 1e-30, 1.0)})
        require_weights(named_values("agto", self, "alpha", "beta", "alpha_end", "beta_end"))
        require_below_one(named_values("agto", self, "warmup"))
        if self.decay_fraction is None:
            return
        if not 0 < self.decay_fraction <= 1 - self.warmup:
            raise ValueError(
                "agto.decay_fraction must be positive and leave room for agto.warmup ="
                f" {self.warmup}; got {self.decay_fraction}."
            )
        if self.alpha_end is None and self.beta_end is None:
            raise ValueError(
                "agto.decay_fraction needs agto.alpha_end or agto.beta_end to move to; both are"
                " null. Set one, or leave it out."
            )
