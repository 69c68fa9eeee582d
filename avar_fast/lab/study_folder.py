"""What a study keeps in its folder: a marker with its settings, and parts that are either whole or
not there."""

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from .runs import TrainingRun, checkpoint, need_all_steps, train_here


def enter_folder(out: Path, marker: str, settings: dict) -> None:
    """Makes a study's folder, or exits if it is none of this study's.

    Args:
        out: the folder.
        marker: name of the file that holds the settings.
        settings: all that decides the study's results.
    """
    path = out / marker
    if path.is_file():
        before, now = _read(path), json.loads(json.dumps(settings))
        if before is None:
            sys.exit(
                f"error: {path} must hold a study's settings; it is damaged. Name another --out."
            )
        others = [key for key in before | now if before.get(key) != now.get(key)]
        if others:
            sys.exit(
                f"error: --out must be a new folder or one of a study with the same settings; {out}"
                f" holds a study with other {' and '.join(others)}. Name another."
            )
        return
    try:
        unfinished = _unfinished(path)  # of a study that was killed as it began
        if out.exists() and any(child != unfinished for child in out.iterdir()):
            sys.exit(f"error: --out must be a new folder; {out} holds other files. Name another.")
        out.mkdir(parents=True, exist_ok=True)
        write_whole(path, settings)
    except OSError as error:
        sys.exit(f"error: --out must be a folder to write into; {error}. Name another.")


@contextlib.contextmanager
def only_study(out: Path, marker: str) -> Iterator[None]:
    """While it lasts, no other process runs the study of this folder. Exits the program where one
    does, or where the folder cannot be written.

    Args:
        out: the folder.
        marker: name of the file that holds the settings.
    """
    if not os.access(out, os.W_OK | os.X_OK):
        sys.exit(f"error: --out must be a folder to write into; {out} is read-only. Name another.")
    with (out / marker).open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                f"error: another process runs the study in {out}; wait for its end, or name another"
                " --out."
            )
        yield


def make_whole(path: Path, make: Callable[[Path], object]) -> None:
    """Makes a folder, if it is not there; under another name until it is whole."""
    if path.exists():
        return
    making = path.with_name(f"{path.name}-making")
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    make(making)
    making.rename(path)


def link_above(folder: Path, name: str) -> None:
    """Makes ``folder/name`` a link to what the folder above calls so, unless it is there."""
    with contextlib.suppress(FileExistsError):  # another part may have made it just now
        (folder / name).symlink_to(Path("..") / name)


def write_whole(path: Path, result: dict) -> None:
    """Writes a JSON file; under another name until it is whole."""
    unfinished = _unfinished(path)
    unfinished.write_text(json.dumps(result, indent=1))
    unfinished.rename(path)


def read_whole(path: Path, part: Path | None = None) -> dict:
    """Reads a JSON file that ``write_whole`` wrote. Exits the program where it is damaged.

    Args:
        path: the file.
        part: what a study makes anew where it is missing; by default the file itself.
    """
    result = _read(path)
    if result is None:
        sys.exit(
            f"error: {path} must hold the JSON that the study wrote; it is damaged. Delete"
            f" {part or path}, and run the study again without --page."
        )
    return result


def _read(path: Path) -> dict | None:
    """A JSON object; None where the file holds anything else."""
    try:
        result = json.loads(path.read_text())
    except ValueError:  # no JSON, or no text
        return None
    return result if isinstance(result, dict) else None


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".partial")


def train_whole(run: TrainingRun, folder: Path, data: Path, seed: int) -> None:
    """Trains under another name until the run is whole. Keeps the weights and the log."""
    making = replace(run, key=f"{run.key}-making")
    shutil.rmtree(folder / making.key, ignore_errors=True)
    train_here(making, folder, data / "train.jsonl", seed)
    need_all_steps(run, folder / making.key)
    # The optimizer's state takes four times the room of the weights; no run continues from it.
    shutil.rmtree(checkpoint(folder, making.key) / "engine")
    (folder / making.key).rename(folder / run.key)


def read_lines(path: Path) -> list[dict]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
