"""Settings of a resumed run that are not those of its checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

from .recipe import Recipe

FIXED = (
    "stage",
    "model.path",
    "model.dtype",
    "model.freeze",
    "lora.",
    "engine.zero_stage",
    "grpo.updates_per_rollout",
)
"""Settings that the engine's state depends on; a name that ends with a dot is a whole section. A
change of one is refused. Every other change takes effect from the next step on. Changes of the rows
or of their order need ``--new-data`` as well."""
ZERO_STAGES_ALIKE = {1, 2}  # DeepSpeed's universal checkpoints convert between these


def changed_settings(before: Recipe, now: Recipe) -> dict[str, tuple[Any, Any]]:
    """{"section.key": (before, now)} of the settings that differ. ``train.output_dir`` is left out,
    and so is ``model.path`` where both name one folder."""
    old, new = flat_settings(dataclasses.asdict(before)), flat_settings(dataclasses.asdict(now))
    changed = [key for key in new if old[key] != new[key] and key != "train.output_dir"]
    if "model.path" in changed and _same_folder(old["model.path"], new["model.path"]):
        changed.remove("model.path")
    return {key: (old[key], new[key]) for key in changed}


def require_fixed(before: Recipe, now: Recipe, checkpoint: object) -> None:
    """Raises ValueError for a change of a setting in ``FIXED``, and names it. The section lora
    counts only where adapters are trained."""
    has_adapters = before.lora.enabled or now.lora.enabled
    for key, (old, new) in changed_settings(before, now).items():
        if key.startswith("lora.") and not has_adapters:
            continue
        alike = key == "engine.zero_stage" and {old, new} <= ZERO_STAGES_ALIKE
        if alike or not any(key == f or (f.endswith(".") and key.startswith(f)) for f in FIXED):
            continue
        among = " (1 and 2 can resume each other)" if key == "engine.zero_stage" else ""
        raise ValueError(
            f"{key} must be {old}, as in {checkpoint}, to resume{among}; got {new}. Use that, or"
            f" start a new run from the weights with model.path={checkpoint}."
        )


def _same_folder(old: str, new: str) -> bool:
    return Path(old).exists() and Path(new).exists() and Path(old).samefile(new)


def flat_settings(tree: dict[str, Any]) -> dict[str, Any]:
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
