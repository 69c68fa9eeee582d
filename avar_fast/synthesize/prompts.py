"""Prompts: versioned YAML files in which marks ``{{name}}`` stand for the texts of a row."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from .recipe import SynthesisRecipe
from .step_config import STEPS

SHIPPED = Path(__file__).parent / "prompts"
FIELDS = {
    "describe": {"question"},
    "reason": {"question", "description"},
    "rewrite": {"question", "reasoning"},
}
_FIELD = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Prompt:
    """The prompt of one step."""

    version: str
    system: str
    """System turn."""
    user: str
    """User turn, with ``{{name}}`` marks."""
    digest: str
    """SHA-256 of version, system and user. It tells two prompts with the same version apart."""

    def fill(self, **texts: str) -> str:
        """The user turn with every mark replaced. Marks inside the inserted texts are not
        replaced."""
        return _FIELD.sub(lambda mark: texts[mark[1]], self.user)


def load_prompts(recipe: SynthesisRecipe) -> dict[str, Prompt]:
    """Loads the prompt of every step.

    Raises:
        FileNotFoundError: a prompt file does not exist.
        ValueError: a key is missing or unknown, or the marks are not those of the step.
    """
    chosen = {name: recipe.step(name).prompt for name in STEPS}
    shipped = {name: SHIPPED / f"{name}.yaml" for name in STEPS}
    return {
        name: _load(name, shipped[name] if file is None else Path(file))
        for name, file in chosen.items()
    }


def _load(step: str, file: Path) -> Prompt:
    if not file.is_file():
        raise FileNotFoundError(f"{step}.prompt must be an existing YAML file; {file} is not.")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be valid YAML; {error}") from None
    keys = ("version", "system", "user")
    if not isinstance(tree, dict) or set(tree) != set(keys):
        found = ", ".join(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
        raise ValueError(f"{file} must have the keys {', '.join(keys)}; got {found}.")
    empty = [key for key in keys if tree[key] is None or not str(tree[key]).strip()]
    if empty:
        raise ValueError(f"{file}: {empty[0]} must hold text; it is empty.")
    version, system, user = (str(tree[key]).strip() for key in keys)
    if _FIELD.search(system):
        raise ValueError(f"{file}: system must hold no marks, only user is filled; got one.")
    marks = set(_FIELD.findall(user))
    if marks != FIELDS[step]:
        wanted, got = (
            ", ".join(f"{{{{{mark}}}}}" for mark in sorted(names)) or "none"
            for names in (FIELDS[step], marks)
        )
        raise ValueError(f"{file}: user must hold the marks {wanted}; got {got}.")
    digest = hashlib.sha256("\0".join((version, system, user)).encode()).hexdigest()
    return Prompt(version, system, user, digest)
