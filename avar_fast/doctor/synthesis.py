"""What a recipe of a synthesis needs."""

from pathlib import Path

from ..chat.access import read_key
from ..missing import IN_RECIPE
from ..synthesize.recipe import SynthesisRecipe
from ..synthesize.step_config import LAB, STEPS
from .findings import Finding, Packages, of_folder, of_package, of_rows

PART = "avar_fast.synthesize"
ALWAYS: tuple[str, ...] = ("openai", "transformers", "numpy", "pillow")


def synthesis_findings(recipe: SynthesisRecipe, packages: Packages) -> list[Finding]:
    """All that the recipe needs and this machine lacks."""
    needed = dict.fromkeys(ALWAYS, PART)
    if recipe.gates.checker == "accuracy":
        needed["math-verify"] = "gates.checker=accuracy"
    if any(recipe.step(name).base_url == LAB for name in STEPS):
        needed["scikit-learn"] = "the lab's writer"
    found = []
    for name, what in needed.items():
        found += of_package(name, what, packages, PART)
    found += of_rows(recipe.data.path, IN_RECIPE, packages)
    for name in STEPS:
        step = recipe.step(name)
        try:
            read_key(f"{name}.key_env", step.key_env)
        except ValueError as error:
            found.append(Finding(str(error)))
        if step.prompt is not None and not Path(step.prompt).is_file():
            said = f"must be an existing YAML file; {step.prompt} is not"
            found.append(Finding(f"{name}.prompt {said}"))
    return found + of_folder(recipe.output_dir, "output_dir")
