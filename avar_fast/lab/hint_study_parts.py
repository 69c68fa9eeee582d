"""The parts of the hint study: data, the base model, and trained and scored arms. Each is kept once
it is whole, and a part that trains needs a process of its own."""

from functools import partial
from pathlib import Path

import torch

from ..data import Rows, load_rows
from ..loading import load
from .curriculum import Phase, write_curriculum
from .hint_arms import ABSENT, ARMS, BASE, BASE_DATA, CEILING, DATA, NUM_TEST, TESTS, TOWER
from .hint_scores import attach_with_hints, score_hints
from .model import save_base
from .runs import checkpoint
from .study_folder import link_above, make_whole, read_lines, read_whole, train_whole, write_whole
from .world import HINT_PLACES

FIRST_SEED = 1_000  # of the data of cold starts; the base model has 0
Scores = dict[str, float]
Results = dict[str, dict[int, dict[str, Scores]]]
"""{arm: {seed: {place of the hints in the tests: scores}}}, of finished runs"""


def make_test(out: Path, test: str) -> None:
    """The rows of a test, for all models: ``test/NAME/test.jsonl``."""
    phases = (Phase((TESTS[test],), pool=NUM_TEST, count=NUM_TEST),)
    make_whole(out / "test" / test, lambda path: write_curriculum(path, phases, 0, split="test"))


def make_base(out: Path) -> None:
    """The base model of all seeds: ``base``, with its scores."""
    data = out / "data" / "base"
    make_whole(data, lambda path: write_curriculum(path, BASE_DATA, 0))
    make_whole(out / "init", lambda path: save_base(path, 0, TOWER))
    if not (out / BASE.key).exists():
        train_whole(BASE, out, data, 0)
    if not (out / "base.json").exists():
        write_whole(out / "base.json", {"scores": _scores(out, out, BASE.key, HINT_PLACES)})


def make_seed_data(out: Path, seed: int) -> None:
    """The rows of the cold starts of a seed."""
    for place, phases in DATA.items():
        path = _seed_data(out, seed, place)
        make_whole(path, partial(write_curriculum, phases=phases, seed=FIRST_SEED + seed))


def _seed_data(out: Path, seed: int, place: str) -> Path:
    return out / "data" / f"seed-{seed}" / place


def run_arm(out: Path, seed: int, key: str) -> None:
    """Trains and scores an arm: ``seed-SEED/ARM.json``."""
    scored = _scored(out, seed, key)
    if scored.exists():
        return
    folder = scored.parent
    folder.mkdir(exist_ok=True)
    link_above(folder, BASE.key)
    (arm,) = (arm for arm in ARMS if arm.key == key)
    if not (folder / key).exists():
        train_whole(arm, folder, _seed_data(out, seed, arm.place), seed)
    places = HINT_PLACES if key == CEILING.key else (arm.place,)
    log = [
        {name: line[name] for name in ("step", "lm_loss")}
        for line in read_lines(folder / key / "log.jsonl")
    ]
    write_whole(scored, {"scores": _scores(out, folder, key, places), "log": log})


def read_results(out: Path, seeds: int) -> Results:
    """The finished runs of the seeds from 0 on."""
    results: Results = {arm.key: {} for arm in ARMS}
    for key, runs in results.items():
        for seed in range(seeds):
            if (scored := _scored(out, seed, key)).exists():
                runs[seed] = read_whole(scored)["scores"]
    return results


def read_base(out: Path) -> dict[str, Scores]:
    """{place of the hints in the tests: scores of the base model}"""
    return read_whole(out / "base.json")["scores"]


def _scored(out: Path, seed: int, key: str) -> Path:
    return out / f"seed-{seed}" / f"{key}.json"


def _scores(out: Path, folder: Path, key: str, places: tuple[str, ...]) -> dict[str, Scores]:
    """{place: scores on the tests with hints there}"""
    loaded = load(str(checkpoint(folder, key)), torch.float32)
    attach_with_hints(loaded)
    absent = _test_rows(out, ABSENT)
    return {
        place: score_hints(
            loaded, absent, _test_rows(out, f"wrong-{place}"), _test_rows(out, f"right-{place}")
        )
        for place in places
    }


def _test_rows(out: Path, test: str) -> Rows:
    return load_rows(str(out / "test" / test / "test.jsonl"))
