"""The output folder. It belongs to one recipe, of which some settings may change between runs."""

import json
from pathlib import Path
from typing import Any

from ..config import dump_recipe
from ..journal import differing, write_whole
from .journal import NAME as JOURNAL
from .prompts import Prompt
from .recipe import SynthesisRecipe
from .step_config import STEPS

IDENTITY, RECIPE = "identity.json", "recipe.yaml"
# Settings that change the distribution of texts. They must stay the same. Limits, prices, gates,
# the budget and the numbers of samples and rows may change between runs.
_STEP_KEYS = (
    "model", "temperature", "top_p", "max_tokens", "seed", "take_reasoning", "extra_body",
)  # fmt: skip


def claim(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> None:
    """Claims the output folder for a recipe and writes the resolved recipe into it. The caller must
    hold the folder's journal open.

    Raises:
        ValueError: as ``check_folder``.
    """
    check_folder(recipe, prompts)  # again, because another run may have claimed it meanwhile
    folder = Path(recipe.output_dir)
    write_whole(folder / IDENTITY, [json.dumps(_identity(recipe, prompts), indent=1), "\n"])
    write_whole(folder / RECIPE, [dump_recipe(recipe)])


def check_folder(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> None:
    """Checks that the output folder is free or belongs to this recipe. Nothing is written.

    Raises:
        ValueError: the folder belongs to another recipe (the message names the settings that
            differ), or it holds other files.
    """
    folder = Path(recipe.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir must be a folder; {folder} is a file.")
    marker = folder / IDENTITY
    if not marker.is_file():
        if not folder.is_dir() or all(_is_start(path) for path in folder.iterdir()):
            return
        raise ValueError(
            f"output_dir must be new, empty or of an earlier run of this recipe; {folder} holds"
            " other files. Name another folder."
        )
    before = json.loads(marker.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(_identity(recipe, prompts)))
    different = differing(before, now)
    if different:
        changes = "; ".join(
            f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in different
        )
        raise ValueError(
            f"output_dir must be of this recipe; {folder} was made with other settings ({changes})."
            " Name another output_dir, or put the settings back."
        )


def _is_start(path: Path) -> bool:
    """Whether a run that was killed before it claimed its folder may have left this file."""
    empty_journal = path.name == JOURNAL and path.stat().st_size == 0
    return empty_journal or path.name == f"{IDENTITY}.partial"


def _identity(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> dict[str, Any]:
    data = recipe.data
    names = ("path", "split", "min_pixels", "max_pixels")
    identity: dict[str, Any] = {f"data.{name}": getattr(data, name) for name in names}
    for name in STEPS:
        step = recipe.step(name)
        identity |= {f"{name}.{key}": getattr(step, key) for key in _STEP_KEYS}
        identity[f"{name}.prompt"] = f"{prompts[name].version} {prompts[name].digest[:16]}"
    return identity
