"""What a model reads at each step of a walk when the true steps before it are given.

A digit is predicted at the letter before it. Step 0 has no prior: it shows how well the model
reads. From step 1 on, the rule competes with the image.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import record_attention
from ..attention.masses import as_layers
from ..data import Encoder, Rows, Sample, collate
from ..loading import Loaded
from .walk import rule_digit
from .world import DEFAULT_SYSTEM

_TYPES = {"text": KeyType.TEXT, "visual": KeyType.VISUAL, "system": KeyType.SYSTEM}


@dataclass(frozen=True)
class StepScores:
    """Teacher-forced scores of one model on walks of K steps. Shares are from 0 to 1."""

    accuracy: list[float]
    """(K,) share of walks whose digit has the highest probability of the ten, per step."""
    follows_rule: list[float]
    """(K - 1,) share of walks whose predicted digit is the rule's, of those in which the rule and
    the image differ; steps 1 to K - 1."""
    margin: list[float]
    """(K - 1,) mean of log p(true digit) - log p(rule's digit) in the same walks, in nats."""
    masses: dict[str, list[float]]
    """{"text", "visual", "system": (K,)} attention of the predicting position on each key type,
    mean over walks, layers and heads."""
    visual_by_head: list[list[float]]
    """(layers, heads) attention on the image, mean over walks and steps."""

    @property
    def first_accuracy(self) -> float:
        """Accuracy at step 0."""
        return self.accuracy[0]

    @property
    def late_accuracy(self) -> float:
        """Mean accuracy over steps 1 to K - 1."""
        return statistics.mean(self.accuracy[1:])

    @property
    def late_rule(self) -> float:
        """Mean of ``follows_rule`` over the steps."""
        return statistics.mean(self.follows_rule)

    @property
    def visual_mass(self) -> float:
        """Mean attention on the image over the steps."""
        return statistics.mean(self.masses["visual"])


@torch.no_grad()
def score_steps(loaded: Loaded, rows: Rows, batch_size: int = 100) -> StepScores:
    """Scores a model with attention attached on the rows of a walk, all with equally many steps.

    Raises:
        ValueError: the walks have fewer than two steps or differ in their number of steps.
    """
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    walks = [row.columns["meta"]["digits"] for row in rows]
    lengths = {len(walk) for walk in walks}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            "the walks must have equally many steps, two or more; got walks of"
            f" {', '.join(map(str, sorted(lengths)))} steps. Write the rows with one WalkConfig."
        )
    (num_steps,) = lengths
    log_probs, masses = [], []
    for start in range(0, len(rows), batch_size):
        samples = [encoder(rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
        digits, mass = predict_digits(loaded, encoder, samples, digit_ids, num_steps)
        log_probs.append(digits)
        masses.append(mass)
    return _scores(torch.cat(log_probs), torch.cat(masses, dim=1), torch.tensor(walks))


@torch.no_grad()
def predict_digits(
    loaded: Loaded, encoder: Encoder, samples: list[Sample], digit_ids: Tensor, num_digits: int
) -> tuple[Tensor, Tensor]:
    """What a model reads where it predicts the first K digits of N targets, the true ones before
    them given.

    Args:
        loaded: a model with attention attached.
        encoder: that made the samples.
        samples: whose targets have at least K digits.
        digit_ids: (10,) int64, the tokens of the digits.
        num_digits: K.

    Returns:
        log_probs: (N, K, 10) float32 of the digits.
        masses: (layers, N, K, H, C) float32.
    """
    batch = collate(samples, loaded.tokenizer.pad_token_id, encoder.tokens.visual)
    at = torch.stack([predicting_positions(sample, digit_ids, num_digits) for sample in samples])
    with record_attention(loaded.model) as recording:
        logits = loaded.model(**batch.inputs, use_cache=False).logits
    rows = torch.arange(len(samples))[:, None]
    masses = torch.stack([mass[rows, at] for mass in as_layers(recording.mass)])
    return logits[rows, at].float().log_softmax(-1)[..., digit_ids], masses


def predicting_positions(sample: Sample, digit_ids: Tensor, num_digits: int) -> Tensor:
    """(K,) int64: the positions before the first K digits of the target."""
    digits = torch.isin(sample.target_ids, digit_ids).nonzero()[:num_digits, 0]
    return len(sample.prompt_ids) + digits - 1


def _scores(log_probs: Tensor, masses: Tensor, walks: Tensor) -> StepScores:
    """
    Args:
        log_probs: (N, K, 10) of the digits.
        masses: (layers, N, K, H, 3).
        walks: (N, K) true digits.
    """
    predicted = log_probs.argmax(-1)
    rule = torch.tensor([rule_digit(digit) for digit in range(10)])[walks[:, :-1]]
    differs = rule != walks[:, 1:]
    late = log_probs[:, 1:]
    margin = late.gather(2, walks[:, 1:, None]) - late.gather(2, rule[..., None])
    by_step = masses.mean(dim=(0, 1, 3))
    return StepScores(
        accuracy=(predicted == walks).double().mean(0).tolist(),
        follows_rule=_mean_where(differs, predicted[:, 1:] == rule),
        margin=_mean_where(differs, margin[..., 0]),
        masses={name: by_step[:, key_type].tolist() for name, key_type in _TYPES.items()},
        visual_by_head=masses[..., KeyType.VISUAL].mean(dim=(1, 2)).tolist(),
    )


def _mean_where(chosen: Tensor, values: Tensor) -> list[float]:
    """Mean of each column of (N, K) values over the chosen rows."""
    return ((values * chosen).sum(0) / chosen.sum(0)).tolist()
