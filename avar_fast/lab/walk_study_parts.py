"""The parts of the walk study: data, base models, and trained and scored arms. Each is kept once it
is whole, and a part that trains needs a process of its own."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..attention import attach
from ..data import Rows, load_rows
from ..loading import Loaded, load
from .curriculum import Phase, write_curriculum
from .dose import score_doses
from .model import save_base
from .runs import checkpoint
from .steps import score_steps
from .study_folder import link_above, make_whole, read_lines, read_whole, train_whole, write_whole
from .walk_arms import ARMS, DOSE_ROWS, READS, STRETCHES, TESTS, TOWERS
from .walk_runs import BASE, DATA, MORE, WalkRun
from .walk_scores import score_model
from .walk_study_tables import Arms, Pair

FIRST_PAIR_SEED = 1_000  # the seeds of the data of cold starts; base models have 0, 1, ...


def make_test(out: Path, test: str) -> None:
    """The rows of a test, for all models: ``test/NAME/test.jsonl``."""
    world, count = TESTS[test]
    phases = (Phase((world,), pool=count, count=count),)
    make_whole(out / "test" / test, lambda path: write_curriculum(path, phases, 0, split="test"))


def make_base_data(out: Path, base: int) -> None:
    """The rows that a base model learns from."""
    make_whole(_base_data(out, base), lambda path: write_curriculum(path, DATA[BASE.data], base))


def _base_data(out: Path, base: int) -> Path:
    return out / "data" / f"base-{base}"


def train_base(out: Path, tower: str, base: int, stretch: int) -> None:
    """A stretch of the training of a base model: ``TOWER-BASE/stretch-STRETCH``. Once the model
    reads, ``TOWER-BASE/base`` leads to it and further stretches do nothing.

    Exits the program where the model does not read after the last stretch.
    """
    folder = out / f"{tower}-{base}"
    make_whole(folder / "init", lambda path: save_base(path, base, tower))
    rows = _test_rows(out, "clean")
    train_reader((BASE, MORE), folder, _base_data(out, base), base, stretch, rows)


def train_reader(
    runs: tuple[WalkRun, WalkRun], folder: Path, data: Path, seed: int, stretch: int, rows: Rows
) -> None:
    """A stretch of the training of a model until it reads: ``stretch-STRETCH`` in its folder, which
    has the untrained model ``init``. ``base`` then leads to the stretch after which it reads.

    Exits the program where the model does not read after the last stretch.

    Args:
        runs: the first stretch and the later ones.
        folder: of the model.
        data: the folder of its rows.
        seed: of the order of its rows.
        stretch: number of the stretch, from 0 on.
        rows: walks at whose later steps it must be right.
    """
    if (folder / BASE.key).exists():
        return
    key, before = f"stretch-{stretch}", f"stretch-{stretch - 1}"
    first, more = runs
    run = replace(more, key=key, start=before) if stretch else replace(first, key=key)
    if not (folder / key).exists():
        train_whole(run, folder, data, seed)
    accuracy = score_steps(load_attached(folder, key), rows).late_accuracy
    if accuracy >= READS:
        (folder / BASE.key).symlink_to(key)
    elif stretch == STRETCHES - 1:
        sys.exit(
            f"error: base model {folder.name} must be right at {READS:.0%} of the later steps of"
            f" clean walks; it is at {accuracy:.0%} after its last stretch of training."
        )


def make_pair_data(out: Path, pair: Pair) -> None:
    """The rows of the cold starts of a base and seed."""
    base, seed = pair
    number = FIRST_PAIR_SEED * (base + 1) + seed
    for data in {arm.data for arm in ARMS}:
        path = _pair_data(out, pair, data)
        make_whole(path, partial(write_curriculum, phases=DATA[data], seed=number))


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
    link_above(folder, BASE.key)
    (run,) = (arm for arm in ARMS if arm.key == key)
    if not (folder / key).exists():
        train_whole(run, folder, _pair_data(out, pair, run.data), seed)
    loaded = load_attached(folder, key)
    uniform, prior = _test_rows(out, "uniform"), _test_rows(out, "prior")
    log = read_lines(folder / key / "log.jsonl")
    result: dict = {
        "scores": score_model(loaded, uniform, prior),
        "log": {name: [line[name] for line in log] for name in ("step", "lm_loss", "grad_norm")},
    }
    if (tower, key) == ("scarce", "plain"):
        result["doses"] = score_doses(loaded, _test_rows(out, "uniform", DOSE_ROWS))
    write_whole(scored, result)


def read_results(out: Path, pairs: dict[str, list[Pair]]) -> dict[str, Arms]:
    """The finished runs of the pairs of each tower; of towers that have any."""
    results: dict[str, Arms] = {}
    for tower, keys in TOWERS.items():
        arms: Arms = {key: {} for key in keys}
        for key, runs in arms.items():
            for pair in pairs[tower]:
                if (scored := _scored(out, tower, pair, key)).exists():
                    runs[pair] = read_whole(scored)
        counts = {key: len(runs) for key, runs in arms.items()}
        if tower == "scarce" or any(counts.values()):
            results[tower] = arms
            if min(counts.values()) < 2:
                lacking = ", ".join(f"{key} ({n})" for key, n in counts.items() if n < 2)
                sys.exit(
                    f"error: every arm of the {tower} tower must have two finished runs for an"
                    f" interval; {lacking} has fewer. Run the study without --page."
                )
            if len(set.intersection(*map(set, arms.values()))) < 2:
                sys.exit(
                    f"error: two bases and seeds of the {tower} tower must have finished runs of"
                    " every arm, for paired differences. Run the study without --page."
                )
    return results


def load_attached(folder: Path, key: str) -> Loaded:
    """A trained model with attention attached."""
    loaded = load(str(checkpoint(folder, key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    return loaded


def _test_rows(out: Path, test: str, limit: int | None = None) -> Rows:
    return load_rows(str(out / "test" / test / "test.jsonl"), limit=limit)


def _scored(out: Path, tower: str, pair: Pair, key: str) -> Path:
    base, seed = pair
    return out / f"{tower}-{base}" / f"seed-{seed}" / f"{key}.json"
