"""The paper's ablation in miniature: VARD, AGTO and VARS, one on top of the other.

``python -m avar_fast.lab.ablation --out runs/ablation`` runs it.

Cold starts from one base model see the same questions with plain chains, with visually anchored
ones (VARD), and with AGTO; GRPO then runs without and with VARS. A hint in the system turn, which
is mostly right, tempts every run to copy instead of reading the image. Rungs and settings are fixed
in lab/ablation_arms.py. A seed has its own base model, rows and order, and its runs share them. A
stopped study goes on with the first unfinished run, and more seeds may join it. Runs are processes
with one thread each.
"""

from functools import partial
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab.ablation"):
    from .ablation_arms import BASE, BESIDE, RUNGS, TESTS, settings, setup
    from .ablation_parts import make_data, make_test, read_results, run, train_reader
    from .ablation_report import write_page
    from .processes import make_all
    from .study_command import command_line, need_runs, parse_study, study_parser
    from .study_folder import enter_folder, only_study

MARKER = "ablation.json"  # settings of the study that made the folder
PRELOADED = ("avar_fast.lab.ablation_parts", "avar_fast.train.grpo")


@needs("avar_fast.lab.ablation")
def main(arguments: list[str] | None = None) -> None:
    parser = study_parser("ablation", __doc__, "ablation.md", seeds=5)
    options = parse_study(parser, arguments)
    out = options.out
    enter_folder(out, MARKER, settings())
    if not options.page:
        with only_study(out, MARKER):
            run_all(out, options.seeds, options.jobs)
    results = read_results(out, options.seeds)
    need_runs(results)
    command = command_line(parser)
    print(write_page(options.docs or out, results, setup(), command))


def run_all(out: Path, seeds: int, jobs: int) -> None:
    """Makes what is not there yet: data, base models, and every arm of every seed.

    Args:
        out: the study's folder.
        seeds: how many, from 0 on.
        jobs: runs at a time.
    """
    numbers = range(seeds)
    cold = [arm for arm in (*RUNGS, *BESIDE) if arm.start == BASE.key]
    later = [arm for arm in RUNGS if arm.start != BASE.key]
    stages = (
        ("tests", [partial(make_test, out, test) for test in TESTS]),
        ("data", [partial(make_data, out, seed) for seed in numbers]),
        ("readers", [partial(train_reader, out, seed) for seed in numbers]),
        ("base models", [partial(run, out, seed, BASE.key) for seed in numbers]),
        ("cold starts", [partial(run, out, seed, arm.key) for seed in numbers for arm in cold]),
        ("GRPO", [partial(run, out, seed, arm.key) for seed in numbers for arm in later]),
    )
    for title, tasks in stages:
        make_all(title, tasks, jobs, PRELOADED)


if __name__ == "__main__":
    main()
