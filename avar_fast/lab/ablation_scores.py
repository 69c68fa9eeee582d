"""What a model of the ablation answers, in whole responses, and where it looks meanwhile."""

import math
import statistics
from dataclasses import replace

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention.masses import as_layers
from ..data import Encoder, Row, Rows, Sample
from ..evaluate import Settings, evaluate_rows
from ..evaluate.prediction import Prediction
from ..loading import Loaded
from ..vas import FORMS
from .ablation_arms import MAX_NEW_TOKENS
from .role_scores import ROLES, record_rows, vas_by_role
from .steps import predict_digits
from .world import DEFAULT_SYSTEM

BATCH_SIZE = 100
MASSES = {"visual": KeyType.VISUAL, "system": KeyType.SYSTEM}
_MASS_NAMES = tuple(f"{of_keys}_{at}" for of_keys in MASSES for at in (*ROLES, "digit"))


def score(loaded: Loaded, tests: dict[str, Rows]) -> dict[str, float]:
    """All scores of a model with attention attached.

    Args:
        loaded: the model.
        tests: rows with no hint ("absent"), with wrong hints ("wrong") and with the right ones
            ("right"), whose answers are single digits.

    Returns:
        {test: accuracy}; of the responses to rows with wrong hints: ``follows`` (share whose answer
        is the hint), ``answered`` (share that has an answer), and the attention while the first
        hundred are written, as in `attention`.
    """
    settings = Settings(
        system_prompt=DEFAULT_SYSTEM, max_new_tokens=MAX_NEW_TOKENS, checker="exact", vas=False
    )
    answers: dict[str, list[Prediction]] = {}
    for name, rows in tests.items():
        _, answers[name] = evaluate_rows(loaded, rows, settings, BATCH_SIZE, name)
    wrong = list(zip(tests["wrong"], answers["wrong"], strict=True))
    responses = [replace(row, target=p.completion) for row, p in wrong if p.completion]
    return {
        **{name: _share([p.right for p in of_test]) for name, of_test in answers.items()},
        "follows": _share([p.parsed == str(row.columns["meta"]["hint"]) for row, p in wrong]),
        "answered": _share([p.parsed is not None for _, p in wrong]),
        **attention(loaded, responses[:BATCH_SIZE]),
    }


def _share(holds: list[bool]) -> float:
    return statistics.mean(map(float, holds))


@torch.no_grad()
def attention(loaded: Loaded, rows: list[Row]) -> dict[str, float]:
    """Where a model with attention attached looks, the targets given.

    Returns:
        Of the queries of each role, ``user`` and ``response``: ``vas_{role}_{form}``,
        ``visual_{role}`` and ``system_{role}`` (masses); of the query that predicts the first digit
        of each target: ``visual_digit`` and ``system_digit``, NaN if no target has a digit. All are
        means over layers, heads and queries that see the image, and NaN without rows.
    """
    if not rows:
        scores = [f"vas_{role}_{form}" for role in ROLES for form in FORMS]
        return dict.fromkeys((*scores, *_MASS_NAMES), math.nan)
    encoder, samples, recording, queries = record_rows(loaded, rows)
    scores = vas_by_role(recording, queries)
    for role, chosen in queries.items():
        scores |= _masses(torch.stack([mass[chosen] for mass in as_layers(recording.mass)]), role)
    return scores | _masses(_at_first_digit(loaded, encoder, samples), "digit")


def _at_first_digit(loaded: Loaded, encoder: Encoder, samples: list[Sample]) -> Tensor:
    """(layers, N, 1, H, 3) masses of the queries that predict the first digit of N targets."""
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    with_digit = [s for s in samples if torch.isin(s.target_ids, digit_ids).any()]
    if not with_digit:
        return torch.full((1, 1, 1, 1, 3), math.nan)
    return predict_digits(loaded, encoder, with_digit, digit_ids, 1)[1]


def _masses(masses: Tensor, name: str) -> dict[str, float]:
    """Means of (..., 3) masses."""
    means = masses.flatten(0, -2).mean(0)
    return {f"{of_keys}_{name}": float(means[key_type]) for of_keys, key_type in MASSES.items()}
