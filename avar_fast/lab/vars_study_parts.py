"""The parts of the VARS study: data, base models, cold starts and runs of GRPO. Each is kept once
it is whole, and a part that trains needs a process of its own."""

from functools import partial
from pathlib import Path

from ..data import load_rows
from .curriculum import Phase, write_curriculum
from .model import save_base
from .study_folder import make_whole, read_whole, train_whole, write_whole
from .style_curves import Seeds, read_curves
from .vars_arms import ARMS, CLEAN, CLEAN_ROWS, COLD, DATA, READER, TOWER
from .walk_runs import MORE, WalkRun
from .walk_study_parts import train_reader

SEEDS_APART = 1_000  # no two sets of a study have the same walks


def make_test(out: Path) -> None:
    """The clean walks that tell whether a base model reads."""
    phases = (Phase((CLEAN,), pool=CLEAN_ROWS, count=CLEAN_ROWS),)
    make_whole(out / "test", lambda path: write_curriculum(path, phases, 0, split="test"))


def make_data(out: Path, seed: int) -> None:
    """The rows of all runs of a seed: ``seed-SEED/data/NAME``."""
    for number, (name, phases) in enumerate(DATA.items()):
        write = partial(write_curriculum, phases=phases, seed=SEEDS_APART * number + seed)
        make_whole(_data(out, seed, name), write)


def train_base(out: Path, seed: int, stretch: int) -> None:
    """A stretch of the training of a seed's base model, which ends once the model reads."""
    folder = _folder(out, seed)
    make_whole(folder / "init", lambda path: save_base(path, seed, TOWER))
    rows = load_rows(str(out / "test" / "test.jsonl"))
    train_reader((READER, MORE), folder, _data(out, seed, "base"), seed, stretch, rows)


def train_cold(out: Path, seed: int) -> None:
    """The cold start of all arms of a seed."""
    if not (_folder(out, seed) / COLD.key).exists():
        _train(COLD, out, seed)


def run_arm(out: Path, seed: int, key: str) -> None:
    """Trains an arm and reads its completions: ``seed-SEED/ARM.json``."""
    read = _read(out, seed, key)
    if read.exists():
        return
    (run,) = (arm for arm in ARMS if arm.key == key)
    if not (_folder(out, seed) / key).exists():
        _train(run, out, seed)
    data = _data(out, seed, run.data) / "train.jsonl"
    write_whole(read, read_curves(_folder(out, seed) / key, data))


def read_results(out: Path, seeds: int) -> dict[str, Seeds]:
    """{arm: its finished runs}."""
    return {
        arm.key: {
            seed: read_whole(_read(out, seed, arm.key))
            for seed in range(seeds)
            if _read(out, seed, arm.key).exists()
        }
        for arm in ARMS
    }


def _train(run: WalkRun, out: Path, seed: int) -> None:
    train_whole(run, _folder(out, seed), _data(out, seed, run.data), seed)


def _folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def _data(out: Path, seed: int, name: str) -> Path:
    return _folder(out, seed) / "data" / name


def _read(out: Path, seed: int, key: str) -> Path:
    return _folder(out, seed) / f"{key}.json"
