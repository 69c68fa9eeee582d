"""The walk study: when AGTO cures a lazy model, by how much, and when not.

``python -m avar_fast.lab.walk_study --out runs/walk-study`` runs it.

Every step of a walk needs a fresh look at the image, and the cold start's rows let a model guess
instead. Several base models are trained, and from each of them several seeds of every arm. A seed
has its own digits, walks and order, and all arms of one base and seed share them. Arms and settings
are fixed in lab/walk_arms.py. A stopped study goes on with the first unfinished run, and more
bases and seeds may join it. Runs are processes with one thread each.
"""

from functools import partial
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab.walk_study"):
    from .processes import make_all
    from .study_command import command_line, parse_study, study_parser
    from .study_folder import enter_folder, only_study
    from .walk_arms import ARMS, STRETCHES, TESTS, TOWERS, settings, setup
    from .walk_study_parts import (
        make_base_data,
        make_pair_data,
        make_test,
        read_results,
        run_arm,
        train_base,
    )
    from .walk_study_report import write_page
    from .walk_study_tables import Pair

MARKER = "walk-study.json"  # settings of the study that made the folder
PRELOADED = ("avar_fast.lab.walk_study_parts",)


@needs("avar_fast.lab.walk_study")
def main(arguments: list[str] | None = None) -> None:
    parser = study_parser("walk_study", __doc__, "walk-study.md", seeds=5)
    parser.add_argument("--bases", type=int, default=3, help="base models, from 0 on")
    parser.add_argument(
        "--control-seeds", type=int, default=1, help="seeds of the control, plenty of heads"
    )
    options = parse_study(parser, arguments)
    for name, seeds in (("--seeds", options.seeds), ("--control-seeds", options.control_seeds)):
        if seeds < 1 or options.bases < 1 or options.bases * seeds < 2:
            parser.error(
                f"--bases times {name} must be at least 2, for an interval; got"
                f" {options.bases} times {seeds}."
            )
    out = options.out
    enter_folder(out, MARKER, settings())
    pairs = {
        tower: [(base, seed) for seed in range(seeds) for base in range(options.bases)]
        for tower, seeds in (("scarce", options.seeds), ("plenty", options.control_seeds))
    }
    if not options.page:
        with only_study(out, MARKER):
            run_all(out, pairs, options.jobs)
    titles = {arm.key: arm.title for arm in ARMS}
    results = read_results(out, pairs)
    command = command_line(parser)
    print(write_page(options.docs or out, titles, results, setup(), command))


def run_all(out: Path, pairs: dict[str, list[Pair]], jobs: int) -> None:
    """Makes what is not there yet: data, base models, and every arm of every pair.

    Args:
        out: the study's folder.
        pairs: {tower: its bases and seeds}.
        jobs: runs at a time.
    """
    whole = sorted({pair for of_tower in pairs.values() for pair in of_tower})
    bases = sorted({base for base, _ in whole})
    stages = (
        ("tests", [partial(make_test, out, test) for test in TESTS]),
        ("data of base models", [partial(make_base_data, out, base) for base in bases]),
        *(
            (
                f"base models, stretch {stretch + 1} of at most {STRETCHES}",
                [partial(train_base, out, tower, b, stretch) for tower in TOWERS for b in bases],
            )
            for stretch in range(STRETCHES)
        ),
        ("data of cold starts", [partial(make_pair_data, out, pair) for pair in whole]),
        (
            "cold starts",
            [
                partial(run_arm, out, tower, pair, key)
                for pair in sorted(whole, key=lambda pair: pair[1])  # a seed of all, then the next
                for tower, keys in TOWERS.items()
                for key in keys
                if pair in pairs[tower]
            ],
        ),
    )
    for title, tasks in stages:
        make_all(title, tasks, jobs, PRELOADED)


if __name__ == "__main__":
    main()
