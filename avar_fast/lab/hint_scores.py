"""What a model makes of an image and a hint: its answers, and where it looks for them."""

import statistics
from dataclasses import dataclass
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import attach, intervene
from ..data import Encoder, Rows
from ..loading import Loaded
from .steps import predict_digits
from .world import DEFAULT_SYSTEM

HINT = 3
"""The key type of a hint's tokens."""
TYPES = {
    "hint": HINT,
    "visual": KeyType.VISUAL,
    "system": KeyType.SYSTEM,
    "text": KeyType.TEXT,
}
HIDDEN = -1e4  # bias of the logits of keys that leaves them no attention
BATCH_SIZE = 100


class HintTokens:
    """``attach(model, tokenizer, num_types=4, classify=HintTokens(tokenizer))``: the tokens of a
    hint, from "Hint" to its full stop, are of the type ``HINT``, whatever turn they stand in."""

    def __init__(self, tokenizer: Any) -> None:
        self.start, self.stop = tokenizer.convert_tokens_to_ids(["Hint", "."])

    def __call__(self, ids: Tensor, types: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1], device=ids.device)
        last_start, last_stop = (
            torch.where(ids == token, position, -1).cummax(dim=1).values
            for token in (self.start, self.stop)
        )
        stop_before = torch.full_like(last_stop, -1)
        stop_before[:, 1:] = last_stop[:, :-1]
        return torch.where(last_start > stop_before, HINT, types)


def attach_with_hints(loaded: Loaded) -> None:
    """Attaches a model of the lab so that its hints have a key type of their own."""
    classify = HintTokens(loaded.tokenizer)
    attach(loaded.model, loaded.tokenizer, num_types=len(TYPES), classify=classify)


@dataclass(frozen=True)
class HintAnswers:
    """What a model answers to questions whose answers are single digits. Shares are from 0 to 1."""

    accuracy: float
    """Share of rows whose digit has the highest probability of the ten."""
    follows: float
    """Share of rows in which this is the hint's digit; 0 for rows without hints."""
    masses: dict[str, float]
    """{name in ``TYPES``: attention of the query that predicts the digit}, mean over rows, layers
    and heads."""


@torch.no_grad()
def answer(loaded: Loaded, rows: Rows) -> HintAnswers:
    """Asks a model with hints attached, as `attach_with_hints` does; teacher-forced.

    Raises:
        ValueError: an answer is not a single digit.
    """
    for row in rows:
        if row.answer is None or len(row.answer) != 1:
            raise ValueError(
                f"the answers must be single digits; {row.where} has {row.answer!r}. Write the rows"
                " with a grid of 1x1."
            )
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    predicted, masses = [], []
    for start in range(0, len(rows), BATCH_SIZE):
        samples = [encoder(rows[i]) for i in range(start, min(start + BATCH_SIZE, len(rows)))]
        log_probs, mass = predict_digits(loaded, encoder, samples, digit_ids, 1)
        predicted += log_probs[:, 0].argmax(-1).tolist()
        masses.append(mass)
    hints = [row.columns["meta"]["hint"] for row in rows]
    by_type = torch.cat(masses, dim=1).mean(dim=(0, 1, 2, 3))
    return HintAnswers(
        accuracy=_share(predicted, [int(row.answer or "") for row in rows]),
        follows=_share(predicted, hints),
        masses={name: by_type[key_type].item() for name, key_type in TYPES.items()},
    )


def _share(predicted: list[int], wanted: list[int | None]) -> float:
    return statistics.mean(float(p == w) for p, w in zip(predicted, wanted, strict=True))


def score_hints(loaded: Loaded, absent: Rows, wrong: Rows, right: Rows) -> dict[str, float]:
    """All scores of a model on the same questions without hints, with wrong and with right ones.

    ``cut_off`` is the accuracy with wrong hints when no query sees the hint's keys.
    """
    on_wrong = answer(loaded, wrong)
    with intervene(loaded.model, biases={HINT: HIDDEN}):
        cut_off = answer(loaded, wrong)
    return {
        "absent": answer(loaded, absent).accuracy,
        "wrong": on_wrong.accuracy,
        "right": answer(loaded, right).accuracy,
        "follows": on_wrong.follows,
        "cut_off": cut_off.accuracy,
        **{f"{name}_mass": value for name, value in on_wrong.masses.items()},
    }
