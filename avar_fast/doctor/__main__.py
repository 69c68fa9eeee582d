"""``python -m avar_fast.doctor``: the report, and the exit code."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..extras import needs
from .findings import Finding, Packages, lacks_of_parts
from .machine import MachineState, machine_state
from .packages import PackageState, package_states

EXAMPLES = """examples:
  python -m avar_fast.doctor
  python -m avar_fast.doctor configs/qwen2.5-vl-7b-sft-agto.yaml data.path=rows.jsonl"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report.

    Returns:
        0 if all runs that was asked for: the recipes, or the kernels and the trainer without a
        recipe. Otherwise 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.doctor",
        description="Say what this machine has, what runs on it, and what recipes lack.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE | section.key=value",
        help="YAML recipes of the trainer or of a synthesis, and settings for all of them",
    )
    given = parser.parse_args(arguments).recipes
    overrides = [word for word in given if re.match(r"[\w.]+=", word)]
    recipes = [word for word in given if word not in overrides]
    if overrides and not recipes:
        parser.error(f"settings need a recipe; got {overrides[0]}.")

    machine = machine_state()
    _print_lines("machine", machine.facts)
    _print_lines("kernel backends", {k: error or "runs" for k, error in machine.backends.items()})
    packages = package_states()
    _print_packages(packages)
    parts = lacks_of_parts(packages, machine.has_gpu)
    _print_lines("parts", {part: lack or "ready" for part, lack in parts.items()})
    troubles = _general_troubles(machine, "" if recipes else parts["avar_fast.train"])
    for recipe in recipes:
        found = _of_recipe(recipe, overrides, packages, machine)
        lines = [f"{'missing' if x.fatal else 'note':7}  {x.text.rstrip('.')}" for x in found]
        print(f"\nrecipe {recipe}\n  " + "\n  ".join(lines or ["nothing is missing"]))
        if count := sum(x.fatal for x in found):
            troubles.append(f"{recipe} lacks {count} thing{'s' if count > 1 else ''}, see above")
    print(flush=True)
    for trouble in troubles:
        print(f"error: {trouble}.", file=sys.stderr)
    if not troubles:
        print("Nothing is missing." if recipes else "The kernels and the trainer run here.")
    return 1 if troubles else 0


def _general_troubles(machine: MachineState, lack_of_trainer: str) -> list[str]:
    troubles = [f"the kernels do not run: {trouble}" for trouble in machine.troubles]
    if lack_of_trainer:
        troubles.append(f"the trainer does not run: {lack_of_trainer}")
    return troubles


def _of_recipe(
    path: str, overrides: list[str], packages: Packages, machine: MachineState
) -> list[Finding]:
    """All that a recipe of the trainer or of a synthesis needs and does not find."""
    try:
        with needs("avar_fast.train"):
            return _findings(path, overrides, packages, machine)
    except (ImportError, ValueError, OSError) as error:
        return [Finding(str(error))]


def _findings(
    path: str, overrides: list[str], packages: Packages, machine: MachineState
) -> list[Finding]:
    from ..config import load_recipe, read_recipe

    if not _is_synthesis(Path(path)):
        from .training import training_findings

        return training_findings(load_recipe(path, overrides), packages, machine)
    from ..synthesize.recipe import SynthesisRecipe
    from .synthesis import synthesis_findings

    return synthesis_findings(read_recipe(SynthesisRecipe, path, overrides), packages)


def _is_synthesis(file: Path) -> bool:
    """Whether a file is a recipe of a synthesis; the trainer's has a stage instead of steps."""
    return file.is_file() and bool(re.search(r"^describe:", file.read_text(), re.MULTILINE))


def _print_packages(packages: Packages) -> None:
    width = max(map(len, packages))
    print("\npackages")
    for state in packages.values():
        print(f"  {state.name:{width}}  {state.version or '-':14}  {_verdict(state)}")


def _verdict(state: PackageState) -> str:
    tested = f"tested: {state.allowed or 'any'}"
    if state.version is None:
        return f"not installed; {tested}"
    if state.error:
        return f"{state.lack}; {tested}"
    return tested if state.in_range else f"outside of what was tested; {tested}"


def _print_lines(title: str, lines: dict[str, str]) -> None:
    if not lines:
        return
    width = max(map(len, lines))
    print(f"\n{title}")
    for name, text in lines.items():
        print(f"  {name:{width}}  {text}")


if __name__ == "__main__":
    sys.exit(main())
