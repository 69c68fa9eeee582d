"""The hint study: does AGTO's suppressing term take a shortcut away, and does it matter where the
shortcut stands?

``python -m avar_fast.lab.hint_study --out runs/hint-study`` runs it.

Every question of a cold start carries a hint that is mostly right, in the system turn or in the
user turn. A model can copy the hint or read the image. The suppressing term lowers attention on the
keys of the system turn, so it should help only where the hint stands there. Each arm is a turn of
the hint, a part of AGTO and its queries. Models are tested with hints as a key type of their own.
Arms and settings are fixed in lab/hint_arms.py. All seeds start from one base model. A seed has its
own digits, hints and order, and all arms of a seed share them. A stopped study goes on with the
first unfinished run, and more seeds may join it. Runs are processes with one thread each.
"""

from functools import partial
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab.hint_study"):
    from .hint_arms import ARMS, TESTS, settings, setup
    from .hint_study_parts import (
        make_base,
        make_seed_data,
        make_test,
        read_base,
        read_results,
        run_arm,
    )
    from .hint_study_report import write_page
    from .processes import make_all
    from .study_command import command_line, parse_study, study_parser
    from .study_folder import enter_folder, only_study

MARKER = "hint-study.json"  # settings of the study that made the folder
PRELOADED = ("avar_fast.lab.hint_study_parts",)


@needs("avar_fast.lab.hint_study")
def main(arguments: list[str] | None = None) -> None:
    parser = study_parser("hint_study", __doc__, "hint-study.md", seeds=5)
    options = parse_study(parser, arguments)
    out = options.out
    enter_folder(out, MARKER, settings())
    if not options.page:
        with only_study(out, MARKER):
            run_all(out, options.seeds, options.jobs)
    elif not (out / "base.json").exists():
        parser.error("--page needs a study with a base model; run it without --page first.")
    command = command_line(parser)
    results = read_results(out, options.seeds)
    print(write_page(options.docs or out, results, read_base(out), setup(), command))


def run_all(out: Path, seeds: int, jobs: int) -> None:
    """Makes what is not there yet: data, the base model, and every arm of every seed.

    Args:
        out: the study's folder.
        seeds: how many, from 0 on.
        jobs: runs at a time.
    """
    numbers = range(seeds)
    stages = (
        ("tests", [partial(make_test, out, test) for test in TESTS]),
        ("base model", [partial(make_base, out)]),
        ("data of cold starts", [partial(make_seed_data, out, seed) for seed in numbers]),
        ("cold starts", [partial(run_arm, out, seed, a.key) for seed in numbers for a in ARMS]),
    )
    for title, tasks in stages:
        make_all(title, tasks, jobs, PRELOADED)


if __name__ == "__main__":
    main()
