"""The output folder: which recipe it belongs to, and what may change between runs."""

import json
from pathlib import Path
from typing import Any

from ..config import dump_recipe
from .prompts import Prompt
from .recipe import STAGES, SynthesisRecipe

IDENTITY, RECIPE = "identity.json", "recipe.yaml"
# What makes two texts come from different distributions; limits, prices, gates, budget, number of
# samples and of rows may change from run to run.
_STAGE_KEYS = (
    "model", "temperature", "top_p", "max_tokens", "seed", "take_reasoning", "extra_body",
)  # fmt: skip


def claim(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> Path:
    """Makes the output folder, or checks that it belongs to this recipe; writes the resolved
    recipe into it.

    Raises:
        ValueError: it belongs to another recipe (the settings that differ are named), or it holds
            other things.
    """
    folder = Path(recipe.output_dir)
    check_folder(recipe, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_identity(recipe, prompts), indent=1)
    (folder / IDENTITY).write_text(text + "\n", encoding="utf-8")
    (folder / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
    return folder


def check_folder(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> None:
    """The checks of ``claim``; writes nothing."""
    folder = Path(recipe.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder; {folder} is a file.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    marker = folder / IDENTITY
    if not marker.is_file():
        raise ValueError(
            f"output_dir must be new, empty or of an earlier run of this recipe; {folder} holds"
            " other files. Name another folder."
        )
    before = json.loads(marker.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(_identity(recipe, prompts)))
    different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if different:
        changes = "; ".join(
            f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in different
        )
        raise ValueError(
            f"output_dir must be of this recipe; {folder} was made with other settings ({changes})."
            " Name another output_dir, or put the settings back."
        )


def _identity(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> dict[str, Any]:
    identity: dict[str, Any] = {"data.path": recipe.data.path, "data.split": recipe.data.split}
    for name in STAGES:
        stage = recipe.stage(name)
        identity |= {f"{name}.{key}": getattr(stage, key) for key in _STAGE_KEYS}
        identity[f"{name}.prompt"] = f"{prompts[name].version} {prompts[name].digest[:16]}"
    return identity
