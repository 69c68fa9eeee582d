"""The settings of a run that change predictions. A run can only be resumed with the same ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..attention import INTERVENTION_FORMS
from ..attention import LARGEST_INTERVENTION as LARGEST
from ..attention.tokens import ROLES
from ..rewards import CHECKERS
from .prompts import STYLES


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of generation, scoring and intervention. Generation is greedy."""

    style: str = "tags"
    """Style of the prompts: tags, direct or official."""
    system_prompt: str | None = "You are a helpful assistant."
    """System turn of questions that have none. None adds none; VAS is then not available."""
    max_new_tokens: int = 2048
    """Largest number of tokens in an answer."""
    min_pixels: int | None = None
    """Smallest image after resizing. None uses the limit of the model's image processor; a
    checkpoint of the trainer has the recipe's limits."""
    max_pixels: int | None = None
    """Largest image after resizing. None as for ``min_pixels``."""
    limit: int | None = None
    """Number of questions to take from each benchmark, from the first on. None takes all."""
    checker: str = "accuracy"
    """Reward rule that scores the user's own rows."""
    vas: bool = True
    """Whether to record the Visual Attention Score while the prompts are read."""
    visual_scale: float = 1.0
    """Factor of image keys; ``form`` says of what."""
    system_scale: float = 1.0
    """Factor of the system turn's keys."""
    visual_bias: float = 0.0
    """Added to the logits of image keys."""
    system_bias: float = 0.0
    """Added to the logits of the system turn's keys."""
    layers: tuple[int, ...] | None = None
    """Text layers to intervene in, by their index in the model; None for all with attention."""
    form: str = "logits"
    """What the factors multiply: logits, weights or weights_unnormalized, as in
    ``avar_fast.attention.intervene``."""
    changed_queries: str = "all"
    """Whose attention the intervention changes: all, or the tokens of user, prompt or response."""
    engine: str = "model"
    """What generates: the model itself, vllm or vllm_server."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("style", self.style, STYLES),
            ("checker", self.checker, CHECKERS),
            ("engine", self.engine, ENGINES),
            ("form", self.form, INTERVENTION_FORMS),
            ("changed_queries", self.changed_queries, ROLES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        for name in ("max_new_tokens", "min_pixels", "max_pixels", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        if self.min_pixels is not None and not self.min_pixels <= (self.max_pixels or math.inf):
            raise ValueError(
                f"min_pixels must be at most max_pixels = {self.max_pixels}; got {self.min_pixels}."
            )
        for name in ("visual_scale", "system_scale", "visual_bias", "system_bias"):
            value = getattr(self, name)
            if not abs(value) <= LARGEST:  # NaN is not either
                raise ValueError(
                    f"{name} must be finite, from -{LARGEST:g} to {LARGEST:g}; got {value}."
                )
        for name in ("visual_scale", "system_scale"):
            if self.form != "logits" and getattr(self, name) < 1 / LARGEST:
                raise ValueError(
                    f"{name} must be positive with form {self.form}, at least {1 / LARGEST:g}, as"
                    f" it multiplies attention weights; got {getattr(self, name)}."
                )
        if self.vas and self.system_prompt is None:
            raise ValueError(
                "VAS needs a system turn, to compare the attention on the image with; the system"
                " prompt is empty. Give one with --system-prompt, or leave VAS out with --no-vas."
            )

        if self.engine == "model":
            return
        if self.vas or self.intervention:
            raise ValueError(
                "VAS and interventions need the model's own forward: vLLM shows no attention masses"
                f" and takes no change of them; got engine {self.engine}. Leave interventions out"
                " and VAS with --no-vas, or use --engine model."
            )

    @property
    def intervention(self) -> dict[str, Any]:
        """Arguments of ``avar_fast.attention.intervene``; empty if there is no intervention."""
        neutral = {
            "visual_scale": 1.0,
            "system_scale": 1.0,
            "visual_bias": 0.0,
            "system_bias": 0.0,
        }
        values = {name: getattr(self, name) for name in neutral}
        if values == neutral:
            return {}
        where = {"layers": self.layers, "form": self.form, "queries": self.changed_queries}
        return values | where

    def require_effect(self) -> None:
        """Raises ValueError if the settings say how to intervene, but not to intervene."""
        default = Settings()
        for name in ("layers", "form", "changed_queries"):
            value = getattr(self, name)
            if value != getattr(default, name) and not self.intervention:
                raise ValueError(
                    f"{name} = {value} says how an intervention acts, but there is none. Give"
                    f" {', '.join(INTERVENTIONS)}, or leave it out."
                )

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return values | {"layers": None if self.layers is None else list(self.layers)}


def differing_settings(sides: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """{setting: its value on each side} of the settings that are not the same on all sides."""
    names = dict.fromkeys(name for side in sides for name in side)
    values = {name: [side.get(name) for side in sides] for name in names}
    return {name: each for name, each in values.items() if any(v != each[0] for v in each)}


def intervention_text(settings: Mapping[str, Any]) -> str:
    """A sentence that says how attention was changed; empty if it was not.

    Args:
        settings: those of `Settings.as_dict`, or the arguments of ``intervene``.
    """
    neutral = asdict(Settings()) | {"queries": "all"}
    names = (*INTERVENTIONS, "layers", "form", "changed_queries", "queries")
    changed = [
        f"{name} {settings[name]}"
        for name in names
        if name in settings and settings[name] != neutral[name]
    ]
    return f"Attention was changed: {', '.join(changed)}." if changed else ""


ENGINES = ("model", "vllm", "vllm_server")
INTERVENTIONS = {
    "visual_scale": "factor of image keys; --form says of what",
    "system_scale": "factor of the system turn's keys",
    "visual_bias": "added to the logits of image keys",
    "system_bias": "added to the logits of the system turn's keys",
}
