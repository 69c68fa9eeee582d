"""What a model of the ablation answers, in whole responses, and where it looks meanwhile."""

import statistics
from dataclasses import replace

import torch
from avar_kernels import KeyType

from ..attention import record_attention, sees_image
from ..attention.masses import as_layers
from ..data import Encoder, Row, Rows, collate
from ..evaluate import Settings, evaluate_rows
from ..evaluate.prediction import Prediction
from ..loading import Loaded
from ..vas import visual_attention_score
from .ablation_arms import MAX_NEW_TOKENS
from .steps import predict_digits
from .world import DEFAULT_SYSTEM

BATCH_SIZE = 100
VAS_EPS = 1e-6
VAS_FORMS = ("log_ratio", "share")
VAS_ROLES = ("user", "response")


def score(loaded: Loaded, tests: dict[str, Rows]) -> dict[str, float]:
    """Scores a model with attention attached.

    Args:
        loaded: the model.
        tests: rows with no hint ("absent"), with wrong ones ("wrong") and with right ones
            ("right"), on the same questions.

    Returns:
        Accuracy of each test by its name; with wrong hints, ``follows`` (share of answers that are
        the hint), ``answered`` (share of responses with an answer), and attention on the model's
        own responses: VAS and masses.
    """
    settings = Settings(
        system_prompt=DEFAULT_SYSTEM, max_new_tokens=MAX_NEW_TOKENS, checker="exact", vas=False
    )
    answers: dict[str, list[Prediction]] = {}
    for name, rows in tests.items():
        _, answers[name] = evaluate_rows(loaded, rows, settings, BATCH_SIZE, name)
    wrong = answers["wrong"]
    hints = [str(row.columns["meta"]["hint"]) for row in tests["wrong"]]
    answered = [
        replace(row, target=p.completion)
        for row, p in zip(tests["wrong"], wrong, strict=True)
        if p.completion
    ]
    return {
        **{name: statistics.mean(float(p.right) for p in of) for name, of in answers.items()},
        "follows": statistics.mean(
            float(p.parsed == hint) for p, hint in zip(wrong, hints, strict=True)
        ),
        "answered": statistics.mean(float(p.parsed is not None) for p in wrong),
        **_attention(loaded, answered),
        "sample": wrong[0].completion,
    }


@torch.no_grad()
def _attention(loaded: Loaded, rows: list[Row]) -> dict[str, float]:
    """VAS and visual mass with the responses given, and masses where their first digit is
    predicted."""
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    digit_ids = torch.tensor([loaded.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)])
    samples = [encoder(row) for row in rows[:BATCH_SIZE]]
    batch = collate(samples, loaded.tokenizer.pad_token_id, encoder.tokens.visual)
    with record_attention(loaded.model) as recording:
        loaded.model(**batch.inputs, use_cache=False)
    assert recording.key_types is not None
    seeing = sees_image(recording.key_types)
    scores = {}
    for role in VAS_ROLES:
        queries = recording.queries(role) & seeing
        for form in VAS_FORMS:
            value = visual_attention_score(recording.mass, queries, VAS_EPS, form)
            scores[f"vas_{role}_{form}"] = float(value)
        by_type = torch.stack([m[queries].mean((0, 1)) for m in as_layers(recording.mass)]).mean(0)
        scores[f"visual_mass_{role}"] = float(by_type[KeyType.VISUAL])
        scores[f"system_mass_{role}"] = float(by_type[KeyType.SYSTEM])
    with_digit = [s for s in samples if torch.isin(s.target_ids, digit_ids).any()]
    _, masses = predict_digits(loaded, encoder, with_digit, digit_ids, 1)
    at_digit = masses.mean(dim=(0, 1, 2, 3))
    scores["digit_visual_mass"] = float(at_digit[KeyType.VISUAL])
    scores["digit_system_mass"] = float(at_digit[KeyType.SYSTEM])
    return scores
