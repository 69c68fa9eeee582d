"""Exact match by greedy generation, and the Visual Attention Score on the same prompts."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..attention import SpecialTokens, key_types, query_mask, record_attention, sees_image
from ..data import Encoder, Row, Rows, Sample, collate
from ..rewards import is_correct
from ..rollout import greedy_texts
from ..vas import FORMS, score_table

VAS_EPS = 1e-6  # the plain ratio of a row whose system mass has vanished stays finite


@dataclass(frozen=True)
class Evaluation:
    """What one model scores on one data set."""

    num_rows: int
    exact_match: float
    """Share of rows whose answer is right."""
    exact_match_by_style: dict[str, float]
    """The same for rows that ask for a reasoning chain and for those that do not."""
    vas: dict[str, float]
    """The three forms, mean over layers, heads and the user tokens that see the image; eps 1e-6."""
    vas_table: dict[str, list[list[float]]]
    """The three forms per layer and head."""
    seconds: float
    completions: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def style_of(row: Row) -> str:
    """ "chain" where the reference reasons before it answers, else "direct"."""
    return "chain" if row.target is not None and "<think>" in row.target else "direct"


@torch.no_grad()
def evaluate(
    model: nn.Module,
    tokenizer: Any,
    image_processor: Any,
    rows: Rows,
    *,
    system_prompt: str | None,
    batch_size: int,
    max_new_tokens: int,
    name: str = "evaluate",
) -> Evaluation:
    """Generates greedily for every row and measures VAS on the prompts.

    Args:
        model: attached, on its device.
        rows: with answers; VAS is taken over the rows that have an image.
        system_prompt: as in training.
        batch_size: rows at once.
        max_new_tokens: longest completion.
        name: of the progress bar.

    Raises:
        ValueError: a row without an answer.
    """
    started = time.perf_counter()
    model.eval()
    encoder = Encoder(tokenizer, image_processor, system_prompt, max_length=1 << 20)
    device = next(model.parameters()).device
    pad_id, visual = tokenizer.pad_token_id, encoder.tokens.visual

    def prompts(some: list[Sample]) -> dict[str, torch.Tensor]:
        return collate(some, pad_id, visual, with_target=False).to(device).inputs

    right: dict[str, list[bool]] = {}
    tables: dict[str, list[tuple[torch.Tensor, int]]] = {form: [] for form in FORMS}
    completions: list[str] = []
    for start in tqdm(range(0, len(rows), batch_size), desc=name, dynamic_ncols=True):
        samples = [encoder(rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
        texts = greedy_texts(model, tokenizer, samples, prompts, encoder.tokens, max_new_tokens)
        for sample, text in zip(samples, texts, strict=True):
            if sample.row.answer is None:
                raise ValueError(f"{sample.row.where}: evaluation needs an answer; got none.")
            right.setdefault(style_of(sample.row), []).append(is_correct(text, sample.row.answer))
        completions += texts
        with_image = [s for s in samples if s.pixel_values is not None]
        if with_image:
            for form, table, count in _score(model, tokenizer, with_image, encoder.tokens, device):
                tables[form].append((table, count))
    mean = {form: _weighted_mean(parts) for form, parts in tables.items() if parts}
    flat = [ok for oks in right.values() for ok in oks]
    return Evaluation(
        num_rows=len(rows),
        exact_match=sum(flat) / len(flat),
        exact_match_by_style={style: sum(oks) / len(oks) for style, oks in sorted(right.items())},
        vas={form: table.mean().item() for form, table in mean.items()},
        vas_table={form: table.tolist() for form, table in mean.items()},
        seconds=time.perf_counter() - started,
        completions=completions,
    )


def _score(
    model: nn.Module,
    tokenizer: Any,
    samples: list[Sample],
    tokens: SpecialTokens,
    device: torch.device,
) -> list[tuple[str, torch.Tensor, int]]:
    batch = collate(samples, tokenizer.pad_token_id, tokens.visual, with_target=False).to(device)
    with record_attention(model) as recording:
        model(**batch.inputs, use_cache=False, logits_to_keep=1)
    span = (batch.inputs["input_ids"], batch.inputs["attention_mask"])
    types = key_types(*span, tokens=tokens)
    queries = query_mask(*span, role="user", tokens=tokens) & sees_image(types)
    count = int(queries.sum())
    return [
        (form, score_table(recording.mass, queries, VAS_EPS, form, types).cpu(), count)
        for form in FORMS
    ]


def _weighted_mean(parts: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    return sum(table.double() * count for table, count in parts) / sum(count for _, count in parts)  # pyright: ignore
