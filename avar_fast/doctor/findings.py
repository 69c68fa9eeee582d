"""What is wrong for a recipe or a part, as lines; and the checks that recipes share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..extras import PARTS, packages_of, remedy, remedy_for
from ..missing import RowNames, require_rows
from .packages import PackageState
from .trials import try_imports

Packages = Mapping[str, PackageState]
LIGER = "liger-kernel"


@dataclass(frozen=True)
class Finding:
    """One line about what is not as it should be."""

    text: str
    fatal: bool = True
    """Without it, the recipe runs all the same, or the doctor cannot tell."""


def lacks_of_parts(packages: Packages, has_gpu: bool) -> dict[str, str]:
    """{part of avar-fast: "", or what it lacks and the command that installs it}."""
    return {part: _lacks(part, packages, has_gpu) for part in PARTS}


def _lacks(part: str, packages: Packages, has_gpu: bool) -> str:
    needed = ("torch", *packages_of(part))
    missing = [name for name in needed if packages[name].version is None]
    broken = [name for name in needed if packages[name].error]
    # The trainer uses Liger on a GPU only, and not where its import fails.
    missing = [name for name in missing if has_gpu or name != LIGER]
    lines = [f"{name} {packages[name].lack}" for name in broken if name != LIGER]
    if missing:
        lines.append(f"not installed: {', '.join(missing)}. Use: {remedy(part)}")
    return "; ".join(lines)


def of_package(name: str, what: str, packages: Packages, part: str | None = None) -> list[Finding]:
    """A finding if a package that ``what`` needs is missing or broken."""
    state = packages[name]
    if not state.lack:
        return []
    if state.version is None:
        lack = f"which is not installed. Use: {remedy_for(name, part)}"
    else:
        lack = f"which {state.lack}. Install a version in its range: {state.allowed or 'any'}"
    return [Finding(f"{what} needs the package {name}, {lack}")]


def of_rows(path: str, names: RowNames, packages: Packages) -> list[Finding]:
    """Findings about the rows at a path; none of them is read."""
    suffix = Path(path).suffix.lower()
    found = []
    if suffix not in (".jsonl", ".json"):
        found = of_package("datasets", f"{names.path}={path}", packages)
    try:
        if not require_rows(path, names):
            said = "is taken as a hub name, which is not looked up here"
            found.append(Finding(f"{names.path}={path} {said}", fatal=False))
    except (ValueError, OSError) as error:
        found.append(Finding(str(error)))
    return found


def of_folder(path: str, setting: str) -> list[Finding]:
    """A finding if files cannot be written into a folder, which may not exist yet."""
    folder = Path(path).absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        return [Finding(f"{setting} must be a folder; {existing} is a file. Name another")]
    if not os.access(existing, os.W_OK | os.X_OK):
        said = f"{existing} is not writable for this user. Name another"
        return [Finding(f"{setting} must be a folder that can be written; {said}")]
    return []


def of_functions(names: list[str]) -> list[Finding]:
    """Findings about reward functions that cannot be imported."""
    hint = "Set PYTHONPATH, check package.module:function"
    return [
        Finding(f"reward {name} cannot be loaded; {error}. {hint}")
        for name, error in try_imports(names).items()
        if error
    ]
