"""Writes visually anchored reasoning: ``python -m avar_fast.synthesize RECIPE.yaml
[section.key=value ...]``.

Exit codes: 0 every row is decided; 1 nothing could be done, the message says why; 3 the budget is
reached; 4 an endpoint failed on the way; 130 interrupted. What is finished is kept, after 3 and 4
written as rows too, and the same command goes on.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from ..extras import lack_of, needs

with needs("avar_fast.synthesize"):
    from ..chat.access import read_key
    from ..config import read_recipe
    from .answer_check import CachedAnswerChecker
    from .card import write_card
    from .estimate import estimate
    from .folder import check_folder, claim
    from .journal import StepJournal, read_entries
    from .prompts import Prompt, load_prompts
    from .recipe import SynthesisRecipe
    from .results import write_results
    from .step_config import LAB, STEPS
    from .tasks import read_tasks

OVER_BUDGET, INCOMPLETE, INTERRUPTED = 3, 4, 130


EXAMPLES = """examples:
  python -m avar_fast.synthesize configs/vard.yaml data.path=rows.jsonl --dry-run
  python -m avar_fast.synthesize configs/vard.yaml data.path=rows.jsonl"""


@needs("avar_fast.synthesize")
def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.synthesize",
        description="Write visually anchored reasoning (VARD) for rows, through endpoints.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="YAML recipe")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="section.key=value, values in YAML"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="estimate calls, tokens and cost; ask nothing"
    )
    options = parser.parse_intermixed_args(arguments)
    try:
        recipe = read_recipe(SynthesisRecipe, options.recipe, options.overrides)
        prompts = load_prompts(recipe)
        if options.dry_run:
            check_folder(recipe, prompts)
            entries = read_entries(Path(recipe.output_dir))
            with closing(CachedAnswerChecker(recipe.gates.checker)) as check:
                print(estimate(recipe, read_tasks(recipe.data), prompts, entries, check))
            return 0
        return synthesize(recipe, prompts)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue.", file=sys.stderr)
        return INTERRUPTED


def synthesize(recipe: SynthesisRecipe, prompts: dict[str, Prompt]) -> int:
    """Runs a recipe until it is finished or must stop. Returns the exit code.

    Raises:
        ValueError, OSError: the input is bad. No request has been sent then.
    """
    _check_packages(recipe)
    from .pipeline import Pipeline, SynthesisOutcome

    for name in STEPS:
        read_key(f"{name}.key_env", recipe.step(name).key_env)
    check_folder(recipe, prompts)
    read = read_tasks(recipe.data)
    folder = Path(recipe.output_dir)
    folder.mkdir(parents=True, exist_ok=True)

    async def run(served: SynthesisRecipe) -> SynthesisOutcome:
        return await Pipeline(served, read, prompts, journal, check).run()

    check = CachedAnswerChecker(recipe.gates.checker)
    with closing(StepJournal(folder)) as journal, closing(check):
        claim(recipe, prompts)
        with _served(recipe) as served:
            outcome = asyncio.run(run(served))
        report = write_results(recipe, read, journal, folder, check)
        write_card(recipe, prompts, report, folder)
    print(json.dumps(report, indent=1))
    if outcome.stopped:
        print(
            f"stopped: {outcome.stopped.rstrip('.')}. What is finished is in {folder}; the same"
            " command goes on.",
            file=sys.stderr,
        )
        return OVER_BUDGET if outcome.over_budget else INCOMPLETE
    if outcome.num_failed:
        print(
            f"{outcome.num_failed} requests failed for good, {journal.path} says how; the same"
            " command asks them again.",
            file=sys.stderr,
        )
        return INCOMPLETE
    return 0


def _check_packages(recipe: SynthesisRecipe) -> None:
    """Checks, before any request, that the packages that a synthesis needs are installed."""
    packages = ["openai"]
    if any(recipe.step(name).base_url == LAB for name in STEPS):
        packages.append("scikit-learn")  # the lab's writer uses its data set of digits
    for package in packages:
        if lack := lack_of(package, "this recipe", "avar_fast.synthesize"):
            raise ValueError(lack)


@contextmanager
def _served(recipe: SynthesisRecipe) -> Iterator[SynthesisRecipe]:
    """Starts the lab's writer if a step uses ``lab``, and yields the recipe with its address
    instead. The writer runs until the context ends."""
    if all(recipe.step(name).base_url != LAB for name in STEPS):
        yield recipe
        return
    from ..lab.endpoint import serve

    with serve() as url:
        steps = {
            name: replace(step, base_url=url)
            for name in STEPS
            if (step := recipe.step(name)).base_url == LAB
        }
        yield replace(recipe, **steps)


if __name__ == "__main__":
    sys.exit(main())
