"""Reads the folder that a training run leaves: its recipe, its log and its completions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..config.changes import flat_settings
from ..config.grpo import VISUAL, reward_label
from ..journal import whole_lines

RECIPE, LOG, COMPLETIONS = "recipe.yaml", "log.jsonl", "completions.jsonl"
MANIFEST = "manifest.json"  # every checkpoint has one
OF_COMPLETION = {
    "step": int,
    "row": str,
    "prompt": str,
    "completion": str,
    "tokens": int,
    "rewards": dict,
    "reward": int | float,
    "advantage": int | float,
}
"""Keys of a line of the completions, and their types."""
SHOWN = 60  # characters of a damaged line in its error


@dataclass(frozen=True)
class RunFolder:
    """A training run, as its folder shows it. The recipe is not checked, so that runs of older
    versions can be read."""

    name: str
    path: Path
    recipe: str
    """The text of recipe.yaml."""
    settings: dict[str, Any]
    """{"section.key": value} of the recipe."""
    log: list[dict[str, Any]]
    """The lines of the log, one at least."""
    notes: list[str]
    """What was left out of the page, and why."""

    @property
    def stage(self) -> str:
        return str(self.settings.get("stage", "-"))

    @property
    def gate(self) -> str | None:
        """The label of the reward that tells right answers; None in stage sft."""
        weights = self.settings.get("grpo.rewards")
        if self.stage != "grpo" or not isinstance(weights, dict):
            return None
        chosen = self.settings.get("grpo.correct_by")
        return reward_label(chosen or next((name for name in weights if name != VISUAL), ""))

    def completions(self) -> Iterator[dict[str, Any]]:
        """The lines of completions.jsonl; none if there is no such file.

        Raises:
            ValueError: a line is damaged.
        """
        path = self.path / COMPLETIONS
        if path.is_file():
            yield from _json_lines(path, OF_COMPLETION)


def read_run(name: str, path: Path) -> RunFolder:
    """Reads recipe and log of a run.

    Raises:
        ValueError: the folder is none that training leaves, nothing is logged yet, or the recipe or
            a line of the log is damaged.
        FileNotFoundError: there is no such folder.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"RUN must be the folder of a training run (train.output_dir); {path} does not exist."
            " Give an existing folder."
        )
    if not path.is_dir() or not (path / RECIPE).is_file() or (path / MANIFEST).is_file():
        raise ValueError(
            f"RUN must be the folder of a training run (train.output_dir) with {RECIPE} and {LOG};"
            f" {path} is {_what_it_is(path)}"
        )
    text = (path / RECIPE).read_text(encoding="utf-8", errors="replace")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        tree = " ".join(str(error).split())
    if not isinstance(tree, dict):
        raise ValueError(
            f"{path / RECIPE} must be the recipe that training wrote; got {str(tree)[:SHOWN]!r}."
            " Copy it from a checkpoint of the run."
        )
    log = list(_json_lines(path / LOG, {"step": int})) if (path / LOG).is_file() else []
    if not log:
        raise ValueError(
            f"RUN must have logged a step; {path / LOG} has none yet. Wait for the first one"
            " (tracking.log_every), or leave this run out."
        )
    notes = [
        f"{path / file}: the last line is incomplete and left out; the run is writing it or was"
        " interrupted there."
        for file in (LOG, COMPLETIONS)
        if _is_cut_off(path / file)
    ]
    settings = flat_settings(tree)
    if settings.get("stage") == "grpo" and not (path / COMPLETIONS).is_file():
        notes.append(f"{path / COMPLETIONS} does not exist; the page shows no completions.")
    return RunFolder(name, path, text, settings, log, notes)


def setting_text(value: object) -> str:
    """The value of a setting as a recipe has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _what_it_is(path: Path) -> str:
    """What a path that is no run is instead, and the remedy."""
    if not path.is_dir():
        return "a file. Give its folder."
    whole = path.resolve()
    if (path / MANIFEST).is_file():
        return f"a checkpoint. Give the folder of its run, {whole.parent.parent}."
    if (path / LOG).is_file():
        return f"one without {RECIPE}. Copy it from a checkpoint of the run."
    if path.name == "checkpoints" and (path.parent / RECIPE).is_file():
        return f"where its checkpoints are. Give the folder of the run, {whole.parent}."
    folders = (f.parent for f in path.glob(f"*/{RECIPE}"))
    inside = sorted(f.name for f in folders if not (f / MANIFEST).is_file())
    if inside:
        return f"none. Give one of the runs in it: {', '.join(inside)}."
    return "none. Give the train.output_dir of a run that has started."


def _json_lines(path: Path, keys: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSONL file; each must have these keys with values of these types."""
    for line in whole_lines(path):
        try:
            value = json.loads(line.content)
        except ValueError:  # not JSON, or not UTF-8
            value = None
        if not isinstance(value, dict) or not all(
            isinstance(value.get(key), kind) for key, kind in keys.items()
        ):
            start = line.content[:SHOWN].decode(errors="replace").rstrip("\n")
            raise ValueError(
                f"{path} line {line.number} must be a JSON object with {', '.join(keys)}; got"
                f" {start!r}. Delete the line, or resume the run, which repairs the file."
            )
        yield value


def _is_cut_off(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
