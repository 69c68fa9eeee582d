"""The parts of the demo: data, and models that are trained and measured. A part that trains needs a
process of its own."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..attention import attach
from ..data import Encoder, Rows, load_rows
from ..evaluate import Settings, evaluate_rows, write_json
from ..loading import Loaded, load
from .curriculum import Phase, write_curriculum
from .demo_runs import (
    DATA,
    MAX_NEW_TOKENS,
    NUM_TEST,
    RUNS,
    STEPS,
    TESTS,
    WORLDS,
    WRONG,
)
from .runs import checkpoint, say, train_here
from .steps import predict_digits
from .study_folder import read_whole, write_whole
from .walk_hints import hint_digits
from .walk_runs import WalkRun
from .walk_story import walk_steps
from .world import DEFAULT_SYSTEM

BATCH_SIZE = 100
NUM_TOLD = 3  # walks of the page
TYPES = ("text", "visual", "system")
Models = dict[str, dict[str, Any]]
"""{key: what ``measure`` writes}"""


def make_data(out: Path, name: str, seed: int) -> None:
    """The rows of training runs: ``data/NAME/train.jsonl``."""
    write_curriculum(out / "data" / name, DATA[name], seed * len(DATA) + list(DATA).index(name))


def make_test(out: Path, test: str) -> None:
    """The rows of a test, the same for every seed: ``test/NAME/test.jsonl``."""
    phases = (Phase((WORLDS[test],), pool=NUM_TEST, count=NUM_TEST),)
    write_curriculum(out / "test" / test, phases, 0, split="test")


def walks_of(out: Path, test: str) -> Rows:
    """The walks of a test."""
    return load_rows(str(out / "test" / test / "test.jsonl"))


def training_data(out: Path, key: str) -> Path:
    """The rows of a run."""
    return out / "data" / RUNS[key].data / "train.jsonl"


def logging_responses(run: WalkRun) -> WalkRun:
    """The run whose log has the score of the response's tokens, whatever AGTO's queries are. It
    changes nothing else: curves of other queries would not compare."""
    return replace(run, settings=(*run.settings, "agto.queries=response"))


def train_and_measure(out: Path, key: str, seed: int) -> None:
    """Trains a model in this process and measures it."""
    started = time.perf_counter()
    train_here(logging_responses(RUNS[key]), out, training_data(out, key), seed)
    measure(out, key, time.perf_counter() - started)


def measure(out: Path, key: str, train_seconds: float) -> None:
    """Scores a trained model on all tests: ``KEY.json``."""
    started = time.perf_counter()
    loaded = load_attached(out, key)
    rows = {test: walks_of(out, test) for test in TESTS}
    scores: dict[str, Any] = {test: score_walks(loaded, rows[test]) for test in TESTS}
    settings = Settings(
        system_prompt=DEFAULT_SYSTEM, max_new_tokens=MAX_NEW_TOKENS, checker="exact"
    )
    title = RUNS[key].title
    result, predictions = evaluate_rows(loaded, rows[WRONG], settings, BATCH_SIZE, title)
    model = {"model": {"path": title}, "settings": settings.as_dict()}
    write_json(out / key / "evaluation.json", model, {"rows": result}, predictions)
    chains = [f"<think>{row.columns['reasoning']}</think>" for row in rows[WRONG]]
    scores["whole_walks"] = statistics.mean(
        chain in prediction.completion
        for chain, prediction in zip(chains, predictions, strict=True)
    )
    told = [walk_steps(loaded, rows[WRONG][i]) for i in range(NUM_TOLD)]
    write_whole(
        out / f"{key}.json",
        {
            "title": title,
            **scores,
            "answers": result.score,
            "vas": result.vas,
            "vas_layers": result.vas_layers,
            "vas_table": result.vas_table,
            "train_seconds": train_seconds,
            "eval_seconds": time.perf_counter() - started,
            "told": [[step.as_dict() for step in walk] for walk in told],
        },
    )
    wrong = scores[WRONG]
    say(
        f"{title}: with wrong hints {wrong['late']:.3f} of the later steps are right,"
        f" {wrong['follows']:.3f} follow the hint ({train_seconds:.0f} s)"
    )


def load_attached(out: Path, key: str) -> Loaded:
    """A trained model with attention attached."""
    loaded = load(str(checkpoint(out, key)), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    return loaded


@torch.no_grad()
def score_walks(loaded: Loaded, rows: Rows) -> dict[str, Any]:
    """What a model with attention attached reads where the true steps before are given.

    Returns:
        accuracy: (STEPS,) share of walks whose digit has the highest probability of the ten.
        first, late: its first value, and the mean of the others.
        follows: for rows with hints, the share of later digits that are the hint's, of those in
            which hint and image differ; None if there are none.
        masses: {"text", "visual", "system": attention of the predicting positions}, mean over
            steps, walks, layers and heads.
    """
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    predicted, masses = [], []
    for start in range(0, len(rows), BATCH_SIZE):
        samples = [encoder(rows[i]) for i in range(start, min(start + BATCH_SIZE, len(rows)))]
        log_probs, mass = predict_digits(loaded, encoder, samples, digit_ids, STEPS)
        predicted.append(log_probs.argmax(-1))
        masses.append(mass)
    metas = [row.columns["meta"] for row in rows]
    read, true = torch.cat(predicted), torch.tensor([meta["digits"] for meta in metas])
    accuracy = (read == true).double().mean(0).tolist()
    follows = None
    if "hint" in metas[0]:
        hint = torch.tensor([hint_digits(meta["hint"]) for meta in metas])[:, 1:]
        differs = hint != true[:, 1:]
        follows = (read[:, 1:] == hint)[differs].double().mean().item() if differs.any() else None
    by_type = torch.cat(masses, dim=1).mean(dim=(0, 1, 2, 3)).tolist()
    return {
        "accuracy": accuracy,
        "first": accuracy[0],
        "late": statistics.mean(accuracy[1:]),
        "follows": follows,
        "masses": dict(zip(TYPES, by_type, strict=True)),
    }


def read_models(out: Path, keys: Sequence[str]) -> Models:
    """What was measured of some models, in this order."""
    return {key: read_whole(out / f"{key}.json", out) for key in keys}
