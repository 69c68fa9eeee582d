"""Settings of a resumed run that are not those of its checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

from .schema import Recipe

FIXED = (
    "stage",
    "model.path",
    "model.dtype",
    "model.freeze",
    "lora.",
    "train.zero_stage",
    "grpo.updates_per_rollout",
)
"""What the state of the engine is made for: settings, and sections with all of theirs. A change is
refused. All others take effect from the next step on; where one changes which rows are dealt, or
their order, that must be said (``--new-data``)."""
ZERO_STAGES_ALIKE = {1, 2}  # between which DeepSpeed's universal checkpoints go


def changed_settings(before: Recipe, now: Recipe) -> dict[str, tuple[Any, Any]]:
    """{"section.key": (before, now)} of the settings that differ; where the run's folder lies is
    none of them."""
    old, new = _flat(dataclasses.asdict(before)), _flat(dataclasses.asdict(now))
    changed = [key for key in new if old[key] != new[key] and key != "train.output_dir"]
    if "model.path" in changed and _same_folder(old["model.path"], new["model.path"]):
        changed.remove("model.path")
    return {key: (old[key], new[key]) for key in changed}


def require_fixed(before: Recipe, now: Recipe, checkpoint: object) -> None:
    """Raises ValueError for a change of what is ``FIXED``, naming it. The settings of adapters
    count where there are any."""
    has_adapters = before.lora.enabled or now.lora.enabled
    for key, (old, new) in changed_settings(before, now).items():
        if key.startswith("lora.") and not has_adapters:
            continue
        alike = key == "train.zero_stage" and {old, new} <= ZERO_STAGES_ALIKE
        if alike or not any(key == f or (f.endswith(".") and key.startswith(f)) for f in FIXED):
            continue
        among = ", or 1 and 2 of one another" if key == "train.zero_stage" else ""
        raise ValueError(
            f"{key} must be {old}, as in {checkpoint}, to resume{among}; got {new}. Use that, or"
            f" start a new run from the weights with model.path={checkpoint}."
        )


def _same_folder(old: str, new: str) -> bool:
    return Path(old).exists() and Path(new).exists() and Path(old).samefile(new)


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """{"section.key": value}"""
    return {
        key: value
        for name, section in tree.items()
        for key, value in (
            ((f"{name}.{inner}", x) for inner, x in section.items())
            if isinstance(section, dict)
            else ((name, section),)
        )
    }
