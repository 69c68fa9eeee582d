"""Files that recipes name and that are not there: what to say, and how to make them."""

from pathlib import Path
from typing import NamedTuple

STUDIES = {
    "runs/demo": ("demo", "demo"),
    "runs/study": ("shortcut study", "study"),
    "runs/vas-study": ("study of the score", "vas_study"),
}
"""{folder: (the program that makes it, its module)}"""


class RowNames(NamedTuple):
    """What the user calls the place of rows, for messages: keys of a recipe, or options."""

    path: str
    split: str


IN_RECIPE = RowNames("data.path", "data.split")
HELD_OUT = RowNames("eval.path", "eval.split")
AS_OPTIONS = RowNames("--data", "--split")


def how_to_make(path: str | Path) -> str:
    """A hint that starts with a space, for an error about a missing path; empty without one."""
    parts = Path(path).parts
    folder = "/".join(parts[:2])
    if folder in STUDIES:
        what, module = STUDIES[folder]
        return f" The {what} makes it: python -m avar_fast.lab.{module} --out {folder}"
    if parts[:2] == ("runs", "vard-lab"):
        command = "data --out runs/vard-lab/data --rows 200 --split train --seed 0"
        return f" The lab writes it: python -m avar_fast.lab {command}"
    if parts and (parts[-1] == "latest" or parts[-2:-1] == ("checkpoints",)):
        above = len(parts) - (1 if parts[-1] == "latest" else 2)
        run = Path(*parts[:above])
        return (
            f" A run with train.output_dir={run} leaves it there: train that recipe first, or give"
            " the folder that you have."
        )
    return ""


def require_rows(path: str, names: RowNames = IN_RECIPE) -> bool:
    """Checks that there are rows at a path, without reading any.

    Args:
        path: a .jsonl, .json or .parquet file, a folder of parquet files or one that ``datasets``
            wrote, or a hub name.
        names: what the user calls the path, for messages.

    Returns:
        Whether the rows are on this machine; a hub name is not looked up.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or folder is of another kind.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if place.is_dir() and suffix not in (".jsonl", ".json"):
        written = ("dataset_dict.json", "state.json")
        if not any((place / name).is_file() for name in written) and not any(
            place.glob("*.parquet")
        ):
            raise ValueError(
                f"{names.path} must be a folder of .parquet files or one that datasets wrote with"
                f" save_to_disk; {path} is neither. Name the .jsonl or .json file itself."
            )
        return True
    if suffix in (".jsonl", ".json", ".parquet"):
        if not place.is_file():
            raise FileNotFoundError(
                f"{names.path} must be an existing file; {path} is not.{how_to_make(path)}"
            )
        return True
    if place.is_file():
        raise ValueError(f"{names.path} must be a .jsonl, .json or .parquet file; got {path}.")
    return False
