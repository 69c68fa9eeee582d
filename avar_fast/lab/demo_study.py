"""The demo over seeds: does AGTO cure a model that copies a hint, and how surely?

``python -m avar_fast.lab.demo_study --out runs/demo-study`` runs it.

Each seed is a demo of its own: data, base model, cold starts and GRPO. Two cold starts of four
times the steps join those of the demo. The plain models are also tested under interventions,
without training. What is finished is kept, and more seeds may join it. The page is demo.md.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..extras import needs

with needs("avar_fast.lab.demo_study"):
    from ..attention import intervene
    from .demo import run_all
    from .demo_parts import load_attached, read_models, score_walks, walks_of
    from .demo_runs import (
        COLD_STARTS,
        DATA,
        DRAWS,
        LONGER,
        MORE,
        NUM_TEST,
        PLAIN,
        READS,
        RUNS,
        STRETCHES,
        TOWER,
        WORLDS,
        WRONG,
    )
    from .demo_study_page import Seeds, write_page
    from .runs import read_recipes
    from .study_command import command_line, parse_study, study_parser
    from .study_folder import enter_folder, make_whole, only_study, read_whole, write_whole

MARKER = "demo-study.json"  # settings of the study that made the folder
INTERVENTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "scale of visual keys 1.15, of system keys 0.85": {"visual_scale": 1.15, "system_scale": 0.85},
    "scale of visual keys 1.5": {"visual_scale": 1.5},
    "scale of system keys 0.5": {"system_scale": 0.5},
    "bias of visual keys +1": {"visual_bias": 1.0},
    "bias of visual keys +4": {"visual_bias": 4.0},
    "bias of system keys -1": {"system_bias": -1.0},
    "bias of system keys -4": {"system_bias": -4.0},
    "bias of system keys -1e4": {"system_bias": -1e4},
}
"""{title: arguments of ``intervene``}, for the plain models with wrong hints."""


@needs("avar_fast.lab.demo_study")
def main(arguments: list[str] | None = None) -> None:
    parser = study_parser("demo_study", __doc__, "demo.md", seeds=5)
    options = parse_study(parser, arguments)
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2, for an interval; got {options.seeds}.")
    out = options.out
    enter_folder(out, MARKER, settings())
    if not options.page:
        with only_study(out, MARKER):
            for seed in range(options.seeds):
                make_whole(out / f"seed-{seed}", partial(run_seed, seed=seed, jobs=options.jobs))
    results = read_results(out, options.seeds)
    if len(results) < 2:
        parser.error(
            f"--page needs two finished seeds, for an interval; {out} has {len(results)}. Run the"
            " study without --page."
        )
    command = command_line(parser)
    print(write_page(options.docs or out, results, command))


def settings() -> dict:
    """All that decides the results of a seed; studies with other settings share no folder."""
    return {
        "recipes": read_recipes({run.recipe for run in RUNS.values()}),
        "runs": [[r.key, r.recipe, r.start, r.data, *r.settings] for r in (MORE, *RUNS.values())],
        "tower": TOWER,
        "data": {name: [asdict(phase) for phase in phases] for name, phases in DATA.items()},
        "tests": {name: asdict(world) for name, world in WORLDS.items()},
        "reads": [READS, STRETCHES, DRAWS],
        "num_test": NUM_TEST,
        "interventions": INTERVENTIONS,
    }


def run_seed(out: Path, seed: int, jobs: int) -> None:
    """A demo with the study's cold starts, and the interventions on its plain model."""
    run_all(out, seed, jobs, (*COLD_STARTS, *LONGER))
    loaded = load_attached(out, PLAIN.key)
    rows = walks_of(out, WRONG)
    scores = {}
    for title, change in INTERVENTIONS.items():
        with intervene(loaded.model, **change):
            scores[title] = score_walks(loaded, rows)
    write_whole(out / "interventions.json", scores)


def read_results(out: Path, seeds: int) -> Seeds:
    """The finished seeds."""
    folders = {seed: out / f"seed-{seed}" for seed in range(seeds)}
    return {
        seed: {
            "models": read_models(folder, list(RUNS)),
            "interventions": read_whole(folder / "interventions.json", folder),
        }
        for seed, folder in folders.items()
        if folder.exists()
    }


if __name__ == "__main__":
    main()
