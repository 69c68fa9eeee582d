"""Training-free changes of the attention, in doses: by scale, by bias, by layer, and on the system
keys as control."""

from dataclasses import dataclass, field
from typing import Any

from ..attention import intervene
from ..data import Rows
from ..loading import Loaded
from .steps import score_steps


@dataclass(frozen=True)
class Dose:
    """One change of the attention."""

    group: str
    """What is changed."""
    value: str
    """By how much."""
    change: dict[str, Any] = field(default_factory=dict)
    """Arguments of ``intervene``."""


NONE = Dose("none", "")
SCALES, BIASES = (0.5, 0.85, 1.15, 1.5, 2.0), (-1.0, 0.5, 1.0, 2.0, 4.0)
DOSES = (
    NONE,
    *(Dose("scale of visual keys", f"{s:g}", {"visual_scale": s}) for s in SCALES),
    *(Dose("bias of visual keys", f"{b:+g}", {"visual_bias": b}) for b in BIASES),
    *(
        Dose(
            f"bias of visual keys, layer {layer}", f"{b:+g}", {"visual_bias": b, "layers": [layer]}
        )
        for layer in (0, 1)
        for b in (1.0, 2.0, 4.0)
    ),
    *(
        Dose(
            f"scale of visual keys, layer {layer}", "1.5", {"visual_scale": 1.5, "layers": [layer]}
        )
        for layer in (0, 1)
    ),
    Dose(
        "visual and system keys, as in the paper",
        "1.15, 0.85",
        {"visual_scale": 1.15, "system_scale": 0.85},
    ),
    *(Dose("scale of system keys", f"{s:g}", {"system_scale": s}) for s in (0.85, 1.15)),
    *(Dose("bias of system keys", f"{b:+g}", {"system_bias": b}) for b in (-2.0, 2.0)),
)


def score_doses(loaded: Loaded, rows: Rows) -> list[dict[str, float]]:
    """What each of ``DOSES`` scores on walks, in their order."""
    results = []
    for dose in DOSES:
        with intervene(loaded.model, **dose.change):
            scores = score_steps(loaded, rows)
        results.append(
            {
                "late_accuracy": scores.late_accuracy,
                "first_accuracy": scores.first_accuracy,
                "follows_rule": scores.late_rule,
                "visual_mass": scores.visual_mass,
            }
        )
    return results
