"""Reads the attention masses of a model's queries, summed per row of a data set. Every study starts
from them.

Each batch takes one forward. The attention kernels return the masses, so no L x L matrix exists.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ..attention import SpecialTokens, intervene, query_mask, record_attention, sees_image
from ..attention import key_types as types_of
from ..attention.contexts import in_words
from ..data import Batch, Encoder, RowError, Rows, Sample, collate
from ..data.problems import bad_row
from ..loading import Loaded
from ..models import family_of
from ..progress import progress
from ..vas.score import FORMS, score_of

QUANTITIES = (*FORMS, "text", "visual", "system", "log_visual", "log_system")
"""The quantities that are measured: the score in three forms, the masses, and the two logarithms
whose difference is the log ratio."""


@dataclass(frozen=True)
class MassSettings:
    """Which queries are read, and how."""

    queries: str = "user"
    """Role of the queries, as in ``avar_fast.attention.query_mask``: user (the paper's choice),
    prompt, response or all. Only queries that see the image are read; the others cannot attend to
    it."""
    system_prompt: str | None = "You are a helpful assistant."
    """System turn of rows that have none; None adds none."""
    eps: float = 1e-6
    """Added to masses, as in ``visual_attention_score``."""
    num_positions: int = 8
    """Number of equal parts into which the queries of a row are divided, in order, for the score by
    token position."""
    batch_size: int = 8
    """Rows per forward."""
    intervention: dict[str, Any] = field(default_factory=dict)
    """Arguments of ``avar_fast.attention.intervene`` for all forwards; empty for none."""


class AttentionShape(NamedTuple):
    """The layers and heads of a model that attend."""

    layers: tuple[int, ...]
    """The text layers with attention, by their index in the model, ascending."""
    num_heads: int
    """Number of heads in each of them."""

    def __str__(self) -> str:
        return f"{self.num_heads} heads in each of the layers {in_words(self.layers)}"


@dataclass(frozen=True)
class RowMasses:
    """Sums over the queries of each row, float64 on the CPU."""

    rows: tuple[str, ...]
    """Origin of each row with an image: data set and row."""
    num_without_image: int
    """Number of rows without an image. They are left out."""
    layers: tuple[int, ...]
    """The text layers with attention, by their index in the model, ascending. Where a dimension
    below is "layers", entry i belongs to the layer ``layers[i]``."""
    counts: Tensor
    """(rows,) numbers of queries."""
    by_head: Tensor
    """(rows, layers, heads, QUANTITIES) sums over queries."""
    position_counts: Tensor
    """(rows, positions) numbers of queries in each part of the row's queries."""
    by_position: Tensor
    """(rows, positions, layers, QUANTITIES) sums over queries of means over heads."""
    num_keys: Tensor
    """(rows, 2) numbers of image tokens and of tokens of the system turn. Scores of other numbers
    do not compare: where attention is even, twice the image tokens have twice the mass."""

    @property
    def num_heads(self) -> int:
        return self.by_head.shape[2]

    @property
    def shape(self) -> AttentionShape:
        return AttentionShape(self.layers, self.num_heads)

    def sizes(self) -> dict[str, Any]:
        """Numbers of rows, queries, keys, layers and heads, and the indices of the layers, for
        the JSON."""
        return {
            "rows": len(self.rows),
            "rows_without_image": self.num_without_image,
            "num_queries": int(self.counts.sum()),
            "num_image_tokens": int(self.num_keys[:, 0].sum()),
            "num_system_tokens": int(self.num_keys[:, 1].sum()),
            "layers": len(self.layers),
            "layer_indices": list(self.layers),
            "heads": self.num_heads,
        }


@torch.no_grad()
def collect(
    loaded: Loaded,
    rows: Rows,
    settings: MassSettings,
    name: str = "masses",
    purpose: str | None = None,
) -> RowMasses:
    """Reads every row that has an image. Each batch takes one forward.

    Args:
        loaded: model with attention attached, on its device.
        rows: the rows; they need answers if ``settings.queries`` is "response".
        settings: which queries to read.
        name: label of the progress bar.
        purpose: what the rows' answers are needed for, named in the error of a row without one.
            None if no answers are needed.

    Raises:
        RowError: a row cannot be read, has no system turn, or lacks an answer that is needed. The
            message names the row.
        ValueError: no row has an image, or masses are NaN.
    """
    tokens = SpecialTokens.from_processor(loaded.tokenizer)
    layers = tuple(family_of(loaded.model).text_attention(loaded.model))
    parts: list[tuple[Tensor, ...]] = []
    where: list[str] = []
    loaded.model.eval()
    with_target = settings.queries in ("response", "all")
    if settings.queries == "response":
        purpose = "queries of the response"
    change = settings.intervention
    with intervene(loaded.model, **change) if change else nullcontext():
        for batch in image_batches(loaded, rows, settings, with_target, purpose, name):
            parts.append(_read(loaded.model, batch, tokens, settings, layers))
            where += batch.rows
    sums = (torch.cat(part) for part in zip(*parts, strict=True))
    return RowMasses(tuple(where), len(rows) - len(where), layers, *sums)


def image_batches(
    loaded: Loaded,
    rows: Rows,
    settings: MassSettings,
    with_target: bool,
    purpose: str | None,
    name: str | None,
) -> Iterator[Batch]:
    """Yields the rows that have an image in batches, on the model's device.

    Args:
        loaded, rows, settings, purpose: as in ``collect``.
        with_target: append the answers, if there are any, to the prompts and pad on the right; else
            yield only prompts.
        name: label of the progress bar; None for no bar.

    Raises:
        RowError, ValueError: as ``collect``.
    """
    encoder = Encoder(
        loaded.tokenizer, loaded.image_processor, settings.system_prompt, max_length=1 << 20
    )
    device = next(loaded.model.parameters()).device
    pad_id, visual_ids = loaded.tokenizer.pad_token_id, encoder.tokens.visual
    has_batch = False
    starts = range(0, len(rows), settings.batch_size)
    for start in progress(starts, desc=name, disable=name is None):
        stop = min(start + settings.batch_size, len(rows))
        batch_rows = [row for row in map(rows.__getitem__, range(start, stop)) if row.images]
        if not batch_rows:
            continue
        samples = [encoder(row) for row in batch_rows]
        for sample in samples:
            _require_turns(sample, encoder, purpose)
        has_batch = True
        yield collate(samples, pad_id, visual_ids, with_target).to(device)
    if not has_batch:
        raise ValueError(
            f"the visual attention score needs rows with an image; none of {len(rows)} has one."
        )


def _require_turns(sample: Sample, encoder: Encoder, purpose: str | None) -> None:
    types = types_of(sample.prompt_ids[None], tokens=encoder.tokens)
    if not (types == KeyType.SYSTEM).any():
        expected, got = "have a system turn for the visual attention score", "it has none"
        remedy = "Give the row a system message, or name one for all rows with --system-prompt."
        raise bad_row(sample.row.where, "the prompt", expected, got, remedy)
    if purpose is not None and not len(sample.target_ids):
        raise lacks_answer(sample.row.where, purpose)


def lacks_answer(where: str, purpose: str) -> RowError:
    """Makes the error of a row without an answer."""
    remedy = "Give the row an answer or a final assistant message."
    return bad_row(where, "answer", f"be given for {purpose}", "got none", remedy)


def _read(
    model: nn.Module,
    batch: Batch,
    tokens: SpecialTokens,
    settings: MassSettings,
    layers: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Reads one batch and returns (counts, by_head, position_counts, by_position, num_keys), as in
    ``RowMasses``."""
    with record_attention(model, layers) as recording:
        model(**batch.inputs, use_cache=False, logits_to_keep=1)
    span = (batch.inputs["input_ids"], batch.inputs["attention_mask"])
    types = recording.key_types
    assert types is not None
    chosen = query_mask(*span, role=settings.queries, tokens=tokens) & sees_image(types)
    masses = [recording.mass[layer][chosen].cpu() for layer in layers]
    chosen = chosen.cpu()  # the sums below run on the CPU, whose order of summation is fixed
    counts = chosen.sum(dim=1)
    row = chosen.nonzero()[:, 0]  # row of each query
    rank = (chosen.cumsum(dim=1) - 1)[chosen]
    position = rank * settings.num_positions // counts[row]
    num_rows, num_positions = len(chosen), settings.num_positions
    cell = row * num_positions + position
    by_head, by_position = [], []
    for mass in masses:
        values = _quantities(mass, settings.eps)
        by_head.append(_sums(values, row, num_rows))
        by_position.append(_sums(values.mean(dim=1), cell, num_rows * num_positions))
    position_counts = torch.bincount(cell, minlength=num_rows * num_positions)
    return (
        counts.double(),
        torch.stack(by_head, dim=1),
        position_counts.double().view(num_rows, num_positions),
        torch.stack(by_position, dim=1).view(num_rows, num_positions, len(by_position), -1),
        torch.stack([(types == kind).sum(1) for kind in (KeyType.VISUAL, KeyType.SYSTEM)], 1).cpu(),
    )


def _quantities(mass: Tensor, eps: float) -> Tensor:
    """(queries, H, 3) masses -> (queries, H, QUANTITIES) float64."""
    mass = mass.double()
    visual, system = mass[..., KeyType.VISUAL], mass[..., KeyType.SYSTEM]
    scores = [score_of(visual, system, eps, form) for form in FORMS]
    masses = [mass[..., KeyType.TEXT], visual, system]
    return torch.stack([*scores, *masses, (visual + eps).log(), (system + eps).log()], dim=-1)


def _sums(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    sums = values.new_zeros(num_groups, *values.shape[1:])
    return sums.index_add_(0, group, values)
