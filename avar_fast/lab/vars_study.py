"""The VARS study: what VARS does where right answers differ in how they look.

``python -m avar_fast.lab.vars_study --out runs/vars-study`` runs it.

A cold start answers walks in two styles: it writes down the board once and walks on what it wrote,
or looks back at the image at every step. From there, GRPO runs without VARS and with each form of
it, and Dr. GRPO without and with it. Every seed has its own base model, rows, order and cold start,
and all arms of a seed share them. Arms and settings are fixed in lab/vars_arms.py. A stopped study
goes on with the first unfinished run, and more seeds may join it. Runs are processes with one
thread each.
"""

from functools import partial
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab.vars_study"):
    from .processes import make_all
    from .study_command import command_line, need_runs, parse_study, study_parser
    from .study_folder import enter_folder, only_study
    from .vars_arms import ARMS, settings, setup
    from .vars_study_parts import (
        make_data,
        make_test,
        read_results,
        run_arm,
        train_base,
        train_cold,
    )
    from .vars_study_report import write_page
    from .walk_arms import STRETCHES

MARKER = "vars-study.json"  # settings of the study that made the folder
PRELOADED = ("avar_fast.lab.vars_study_parts",)


@needs("avar_fast.lab.vars_study")
def main(arguments: list[str] | None = None) -> None:
    parser = study_parser("vars_study", __doc__, "vars-study.md", seeds=5)
    options = parse_study(parser, arguments)
    out = options.out
    enter_folder(out, MARKER, settings())
    if not options.page:
        with only_study(out, MARKER):
            run_all(out, options.seeds, options.jobs)
    results = read_results(out, options.seeds)
    need_runs(results)
    titles = {arm.key: arm.title for arm in ARMS}
    command = command_line(parser)
    print(write_page(options.docs or out, titles, results, setup(), command))


def run_all(out: Path, seeds: int, jobs: int) -> None:
    """Makes what is not there yet: data, base models, cold starts, and every arm of every seed.

    Args:
        out: the study's folder.
        seeds: how many, from 0 on.
        jobs: runs at a time.
    """
    numbers = range(seeds)
    stages = (
        ("test", [partial(make_test, out)]),
        ("data", [partial(make_data, out, seed) for seed in numbers]),
        *(
            (
                f"base models, stretch {stretch + 1} of at most {STRETCHES}",
                [partial(train_base, out, seed, stretch) for seed in numbers],
            )
            for stretch in range(STRETCHES)
        ),
        ("cold starts", [partial(train_cold, out, seed) for seed in numbers]),
        ("GRPO", [partial(run_arm, out, seed, arm.key) for seed in numbers for arm in ARMS]),
    )
    for title, tasks in stages:
        make_all(title, tasks, jobs, PRELOADED)


if __name__ == "__main__":
    main()
