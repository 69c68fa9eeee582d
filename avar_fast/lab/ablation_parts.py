"""The parts of the ablation: data, base models, cold starts and runs of GRPO. Each is kept once it
is whole, and a part that trains needs a process of its own."""

from functools import partial
from pathlib import Path

import torch

from ..attention import attach
from ..data import load_rows
from ..loading import load
from .ablation_arms import (
    ARMS,
    BASE,
    CHAINS,
    HINTED,
    NUM_TEST,
    PROMPTS,
    READ_DATA,
    READER,
    TESTS,
    TOWER,
    AblationRun,
)
from .ablation_rows import write_chains
from .ablation_scores import score
from .curriculum import write_curriculum
from .model import save_base
from .runs import checkpoint
from .study_folder import make_whole, read_whole, train_whole, write_whole
from .world import write_rows

FIRST_SEED = 100  # pilots had smaller ones
SEEDS_APART = 100_000  # no two sets of a study have the same scenes
Scores = dict[str, float]
Results = dict[str, dict[int, Scores]]
"""{run: {seed: scores}}, of finished runs"""


def make_test(out: Path, test: str) -> None:
    """The rows of a test, for all models: ``test/NAME/test.jsonl``."""
    world = TESTS[test]
    make_whole(out / "test" / test, lambda path: write_rows(path, world, "test", NUM_TEST, 0))


def make_data(out: Path, seed: int) -> None:
    """The rows of all runs of a seed: ``seed-SEED/data``."""
    data, first = _folder(out, seed) / "data", FIRST_SEED + seed
    make_whole(data / READER.data, partial(write_curriculum, phases=READ_DATA, seed=first))
    for number, (name, (world, pool)) in enumerate(CHAINS.items(), start=1):
        of_set = first + number * SEEDS_APART
        make_whole(data / name, partial(write_chains, world=world, pool=pool, seed=of_set))
    prompts = first + (len(CHAINS) + 1) * SEEDS_APART
    make_whole(
        data / "prompts", lambda path: write_rows(path, HINTED, "train", PROMPTS, seed=prompts)
    )


def train_reader(out: Path, seed: int) -> None:
    """The first half of a seed's base model."""
    folder = _folder(out, seed)
    make_whole(folder / "init", lambda path: save_base(path, FIRST_SEED + seed, TOWER))
    if not (folder / READER.key).exists():
        _train(READER, out, seed)


def run(out: Path, seed: int, key: str) -> None:
    """Trains and scores the base model or an arm: ``seed-SEED/KEY.json``."""
    scored = _scored(out, seed, key)
    if scored.exists():
        return
    (wanted,) = (one for one in (BASE, *ARMS) if one.key == key)
    if not (_folder(out, seed) / key).exists():
        _train(wanted, out, seed)
    loaded = load(str(checkpoint(_folder(out, seed), key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    tests = {name: load_rows(str(out / "test" / name / "test.jsonl")) for name in TESTS}
    write_whole(scored, score(loaded, tests))


def read_results(out: Path, seeds: int) -> Results:
    """The finished runs of the seeds from 0 on, the base models among them."""
    return {
        one.key: {
            seed: read_whole(_scored(out, seed, one.key))
            for seed in range(seeds)
            if _scored(out, seed, one.key).exists()
        }
        for one in (BASE, *ARMS)
    }


def _train(wanted: AblationRun, out: Path, seed: int) -> None:
    folder = _folder(out, seed)
    train_whole(wanted, folder, folder / "data" / wanted.data, FIRST_SEED + seed)


def _folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def _scored(out: Path, seed: int, key: str) -> Path:
    return _folder(out, seed) / f"{key}.json"
