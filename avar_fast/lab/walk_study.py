"""The walk study: when AGTO cures a lazy model, by how much, and when not.

``python -m avar_fast.lab.walk_study --out runs/walk-study`` runs it.

Every step of a walk needs a fresh look at the image, and the cold start's rows let a model guess
instead. Several base models are trained, and from each of them several seeds of every arm. A seed
has its own digits, walks and order, and all arms of one base and seed share them. Arms, endpoints
and weights are fixed in this file. A stopped study goes on with the first unfinished run, and more
bases and seeds may join it. Runs are processes with one thread each.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ..extras import needs

with needs("avar_fast.lab.walk_study"):
    import torch
    from transformers.utils import logging as transformers_logging

    from ..attention import attach
    from ..config import load_recipe
    from ..data import Rows, load_rows
    from ..loading import Loaded, load
    from ..progress import progress
    from .curriculum import Phase, write_curriculum
    from .dose import DOSES, score_doses
    from .model import save_base
    from .runs import CONFIGS, checkpoint, train_here
    from .steps import score_steps
    from .walk_runs import BASE, DATA, DIM_PRIOR, DIM_UNIFORM, MORE, UNIFORM, WalkRun
    from .walk_scores import score_model
    from .walk_study_report import write_page
    from .walk_study_tables import Arms, Pair

MARKER = "walk-study.json"  # settings of the study that made the folder
PLAIN, AGTO = "lab-walk-sft.yaml", "lab-walk-sft-agto.yaml"


def _agto(key: str, title: str, queries: str, alpha: float, beta: float, *more: str) -> WalkRun:
    weights = (f"agto.queries={queries}", f"agto.alpha={alpha}", f"agto.beta={beta}")
    return WalkRun(key, title, AGTO, "base", (*weights, *more))


ARMS = (
    WalkRun("ceiling", "no prior in the rows (ceiling)", PLAIN, "base", data="uniform"),
    WalkRun("plain", "plain", PLAIN, "base"),
    _agto("agto-user-15", "AGTO, user, 0.15", "user", 0.15, 0.15),
    _agto("agto-user-03", "AGTO, user, 0.03", "user", 0.03, 0.03),
    _agto("agto-response-15", "AGTO, response, 0.15", "response", 0.15, 0.15),
    _agto("agto-response-03", "AGTO, response, 0.03", "response", 0.03, 0.03),
    _agto("enhance", "enhance only, response, 0.15", "response", 0.15, 0),
    _agto("suppress", "suppress only, response, 0.15", "response", 0, 0.15),
    _agto(
        "placebo",
        "placebo: enhance text, response, 0.15",
        "response",
        0.15,
        0,
        "agto.enhance_keys=text",
    ),
    # The control for AGTO's slower learning: the language-model loss of AGTO (response, 0.15) ends
    # at three times that of plain; with a quarter of the learning rate, that of plain ends at about
    # twice its own.
    WalkRun("slow", "plain, a quarter of the learning rate", PLAIN, "base", ("optim.lr=5e-4",)),
)
"""The arms of the scarce tower, where text and image compete in one head a layer."""
CONTROLLED = ("ceiling", "plain", "agto-response-15", "enhance")
"""The arms of the plenty tower, the negative control."""
TOWERS = {"scarce": tuple(arm.key for arm in ARMS), "plenty": CONTROLLED}
"""{tower: keys of its arms}"""
TESTS = {"uniform": (DIM_UNIFORM, 300), "prior": (DIM_PRIOR, 200), "clean": (UNIFORM, 200)}
"""{test: (its walks, their number)}, on handwriting that no model was trained on."""
READS = 0.85  # late accuracy on clean walks that a base model must have
STRETCHES = 4  # of its training, at most
DOSE_ROWS = 200
FIRST_PAIR_SEED = 1_000  # the seeds of the data of cold starts; base models have 0, 1, ...

PRELOADED = (
    "avar_fast.lab.walk_study",
    "avar_fast.train.setup",
    "avar_fast.train.sft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
)


def settings() -> dict:
    """All that decides the results of a pair; studies with other settings share no folder."""
    recipes = {BASE.recipe, *(arm.recipe for arm in ARMS)}
    return {
        "recipes": {
            name: hashlib.sha256((CONFIGS / name).read_bytes()).hexdigest()
            for name in sorted(recipes)
        },
        "arms": {arm.key: [arm.recipe, arm.data, *arm.settings] for arm in ARMS},
        "base": [[run.recipe, *run.settings] for run in (BASE, MORE)],
        "reads": [READS, STRETCHES],
        "towers": {tower: list(keys) for tower, keys in TOWERS.items()},
        "data": {name: [asdict(phase) for phase in phases] for name, phases in DATA.items()},
        "tests": {name: [asdict(world), count] for name, (world, count) in TESTS.items()},
        "doses": [asdict(dose) for dose in DOSES],
        "dose_rows": DOSE_ROWS,
    }


@needs("avar_fast.lab.walk_study")
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.lab.walk_study",
        description=__doc__,
        epilog="example:\n  python -m avar_fast.lab.walk_study --out runs/walk-study --docs docs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/walk-study"))
    parser.add_argument("--bases", type=int, default=3, help="base models, from 0 on")
    parser.add_argument("--seeds", type=int, default=5, help="of each base model, from 0 on")
    parser.add_argument(
        "--control-seeds", type=int, default=1, help="the same for the control, plenty of heads"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--docs", type=Path, help="folder for walk-study.md and its img/")
    parser.add_argument(
        "--page", action="store_true", help="run nothing, write the page of what is finished"
    )
    options = parser.parse_args(arguments)
    for name, seeds in (("--seeds", options.seeds), ("--control-seeds", options.control_seeds)):
        if seeds < 1 or options.bases < 1 or options.bases * seeds < 2:
            parser.error(
                f"--bases times {name} must be at least 2, for an interval; got"
                f" {options.bases} times {seeds}."
            )
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1; got {options.jobs}.")
    out = options.out.resolve()
    enter_folder(out)
    pairs = {
        tower: [(base, seed) for seed in range(seeds) for base in range(options.bases)]
        for tower, seeds in (("scarce", options.seeds), ("plenty", options.control_seeds))
    }
    if not options.page:
        run_all(out, pairs, options.jobs)
    titles = {arm.key: arm.title for arm in ARMS}
    results = read_results(out, pairs)
    command = "python -m avar_fast.lab.walk_study " + " ".join(sys.argv[1:])
    print(write_page(options.docs or out, titles, results, setup(), command))


def read_results(out: Path, pairs: dict[str, list[Pair]]) -> dict[str, Arms]:
    """The finished runs of the pairs of each tower; of towers that have any."""
    results: dict[str, Arms] = {}
    for tower, keys in TOWERS.items():
        arms: Arms = {key: {} for key in keys}
        for key, runs in arms.items():
            for pair in pairs[tower]:
                if (scored := _scored(out, tower, pair, key)).exists():
                    runs[pair] = json.loads(scored.read_text())
        counts = {key: len(runs) for key, runs in arms.items()}
        if tower == "scarce" or any(counts.values()):
            results[tower] = arms
            if min(counts.values()) < 2:
                lacking = ", ".join(f"{key} ({n})" for key, n in counts.items() if n < 2)
                sys.exit(
                    f"error: every arm of the {tower} tower must have two finished runs for an"
                    f" interval; {lacking} has fewer. Run the study without --page."
                )
    return results


def setup() -> str:
    """What is trained and tested, in Markdown."""
    recipe = load_recipe(CONFIGS / PLAIN, [])
    optim, train = recipe.optim, recipe.train
    clipping = f"at norm {optim.max_grad_norm:g}" if optim.max_grad_norm else "off"
    tests = " and ".join(f"{count} {name}" for name, (_, count) in TESTS.items())
    return "\n".join(
        [
            "What was fixed before any arm but `plain` and `ceiling` was looked at:",
            "",
            f"- World: walks of {DIM_PRIOR.steps} steps on {DIM_PRIOR.side} x {DIM_PRIOR.side}"
            " handwritten digits. In the cold start's rows the next digit follows a rule with"
            f" probability {DIM_PRIOR.prior:g}, so it can be guessed; images have contrast"
            f" {DIM_PRIOR.contrast:g} and noise {DIM_PRIOR.noise:g}, the base model's 1 and 0.",
            f"- Cold start: {train.steps} steps of {train.batch_size} rows, learning rate"
            f" {optim.lr:g}, clipping {clipping}, the whole model with its vision tower.",
            "- Towers: scarce heads (2 layers, 1 head), where text and image compete in one head,"
            " and plenty (4 layers, 3 heads), the negative control.",
            f"- Tests: {tests} walks on held-out handwriting. The true steps before each step are"
            " given.",
            "- Primary endpoint: late accuracy, the mean over the steps after the first, on uniform"
            " walks. Others: accuracy at the first step, which no rule helps; how frequently the"
            " rule's digit is predicted where it is wrong; attention on the image (visual mass)"
            " where digits are predicted; accuracy without the image; VAS.",
        ]
    )


def enter_folder(out: Path) -> None:
    """Makes a study's folder, or exits if it is none of this study's."""
    marker, text = out / MARKER, json.dumps(settings(), indent=1)
    if marker.is_file():
        if marker.read_text() != text:
            sys.exit(
                f"error: --out must be a new folder or one of a study with the same settings; {out}"
                " holds a study with other recipes, arms or data. Name another."
            )
        return
    if out.exists() and any(out.iterdir()):
        sys.exit(f"error: --out must be a new folder; {out} holds other files. Name another.")
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(text)


def run_all(out: Path, pairs: dict[str, list[Pair]], jobs: int) -> None:
    """Makes what is not there yet: data, base models, and every arm of every pair.

    Args:
        out: the study's folder.
        pairs: {tower: its bases and seeds}.
        jobs: runs at a time.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes of the pool
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
                for tower, keys in TOWERS.items()
                for pair in pairs[tower]
                for key in keys
            ],
        ),
    )
    for title, tasks in stages:
        _make_all(title, tasks, jobs)


def _make_all(title: str, tasks: Sequence[Callable[[], None]], jobs: int) -> None:
    """Runs the tasks, each in a process of its own, so many at a time."""
    # Its processes are forks of one that has imported all modules, and has run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    stopped = threading.Event()

    def run(task: Callable[[], None]) -> bool:
        if stopped.is_set():
            return False
        process = context.Process(target=_quietly, args=(task,))
        process.start()
        process.join()
        return process.exitcode == 0

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in progress(pool.map(run, tasks), desc=title, total=len(tasks)):
                if not done:
                    sys.exit(f"error: {title}: a part failed; its message is above.")
        finally:
            stopped.set()  # no further part is begun


def _quietly(task: Callable[[], None]) -> None:
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    task()


def _whole(path: Path, make: Callable[[Path], object]) -> None:
    """Makes a folder, if it is not there; under another name until it is whole."""
    if path.exists():
        return
    making = path.with_name(f"{path.name}-making")
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    make(making)
    making.rename(path)


def make_test(out: Path, test: str) -> None:
    """The rows of a test, for all models: ``test/NAME/test.jsonl``."""
    world, count = TESTS[test]
    phases = (Phase((world,), pool=count, count=count),)
    _whole(out / "test" / test, lambda path: write_curriculum(path, phases, 0, split="test"))


def make_base_data(out: Path, base: int) -> None:
    """The rows that a base model learns from."""
    _whole(_base_data(out, base), lambda path: write_curriculum(path, DATA[BASE.data], base))


def _base_data(out: Path, base: int) -> Path:
    return out / "data" / f"base-{base}"


def train_base(out: Path, tower: str, base: int, stretch: int) -> None:
    """A stretch of the training of a base model: ``TOWER-BASE/stretch-STRETCH``. Once the model
    reads, ``TOWER-BASE/base`` leads to it and further stretches do nothing.

    Exits the program where the model does not read after the last stretch.
    """
    folder = out / f"{tower}-{base}"
    if (folder / BASE.key).exists():
        return
    key, before = f"stretch-{stretch}", f"stretch-{stretch - 1}"
    run = replace(MORE, key=key, start=before) if stretch else replace(BASE, key=key)
    _whole(folder / "init", lambda path: save_base(path, base, tower))
    if not (folder / key).exists():
        _train(run, folder, _base_data(out, base), base)
    accuracy = score_steps(_load(folder, key), _test_rows(out, "clean")).late_accuracy
    if accuracy >= READS:
        (folder / BASE.key).symlink_to(key)
    elif stretch == STRETCHES - 1:
        sys.exit(
            f"error: base model {base} ({tower}) must be right at {READS:.0%} of the later steps of"
            f" clean walks; it is at {accuracy:.0%} after its last stretch of training."
        )


def make_pair_data(out: Path, pair: Pair) -> None:
    """The rows of the cold starts of a base and seed."""
    base, seed = pair
    number = FIRST_PAIR_SEED * (base + 1) + seed
    for data in {arm.data for arm in ARMS}:
        path = _pair_data(out, pair, data)
        _whole(path, partial(write_curriculum, phases=DATA[data], seed=number))


def _pair_data(out: Path, pair: Pair, data: str) -> Path:
    base, seed = pair
    return out / "data" / f"pair-{base}-{seed}" / data


def run_arm(out: Path, tower: str, pair: Pair, key: str) -> None:
    """Trains and scores an arm: ``TOWER-BASE/seed-SEED/ARM.json``."""
    scored = _scored(out, tower, pair, key)
    if scored.exists():
        return
    _, seed = pair
    folder = scored.parent
    folder.mkdir(exist_ok=True)
    if not (folder / BASE.key).is_symlink():
        (folder / BASE.key).symlink_to(Path("..") / BASE.key)
    (run,) = (arm for arm in ARMS if arm.key == key)
    if not (folder / key).exists():
        _train(run, folder, _pair_data(out, pair, run.data), seed)
    loaded = _load(folder, key)
    uniform, prior = _test_rows(out, "uniform"), _test_rows(out, "prior")
    log = [json.loads(line) for line in (folder / key / "log.jsonl").read_text().splitlines()]
    result: dict = {
        "scores": score_model(loaded, uniform, prior),
        "log": {name: [line[name] for line in log] for name in ("step", "lm_loss", "grad_norm")},
    }
    if (tower, key) == ("scarce", "plain"):
        result["doses"] = score_doses(loaded, _test_rows(out, "uniform", DOSE_ROWS))
    unfinished = scored.with_suffix(".partial")
    unfinished.write_text(json.dumps(result, indent=1))
    unfinished.rename(scored)


def _load(folder: Path, key: str) -> Loaded:
    loaded = load(str(checkpoint(folder, key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    return loaded


def _test_rows(out: Path, test: str, limit: int | None = None) -> Rows:
    return load_rows(str(out / "test" / test / "test.jsonl"), limit=limit)


def _scored(out: Path, tower: str, pair: Pair, key: str) -> Path:
    base, seed = pair
    return out / f"{tower}-{base}" / f"seed-{seed}" / f"{key}.json"


def _train(run: WalkRun, folder: Path, data: Path, seed: int) -> None:
    """Trains under another name until the run is whole. Keeps the weights and the log."""
    making = replace(run, key=f"{run.key}-making")
    shutil.rmtree(folder / making.key, ignore_errors=True)
    train_here(making, folder, data / "train.jsonl", seed)
    # The optimizer's state takes four times the room of the weights; no run continues from it.
    shutil.rmtree(checkpoint(folder, making.key) / "engine")
    (folder / making.key).rename(folder / run.key)


if __name__ == "__main__":
    main()
