"""What a model's queries look at, summed per row of a data set: what every study starts from.

One forward per batch; masses come from the attention kernels, so no L x L matrix ever exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ..attention import SpecialTokens, query_mask, record_attention, sees_image
from ..attention import key_types as types_of
from ..data import Batch, Encoder, RowError, Rows, Sample, collate
from ..data.problems import bad_row
from ..loading import Loaded
from ..progress import progress
from ..vas.score import FORMS, score_of

QUANTITIES = (*FORMS, "text", "visual", "system", "log_visual", "log_system")
"""The score in three forms, the masses, and the two logarithms whose difference is the log
ratio."""


@dataclass(frozen=True)
class MassSettings:
    """Which queries are read, and how."""

    queries: str = "user"
    """A role of ``avar_fast.attention.query_mask``: user (the paper's), prompt, response or all.
    Of each, only those that see the image: the others give it no mass whatever the model does."""
    system_prompt: str | None = "You are a helpful assistant."
    """System turn of rows that have none; None adds none."""
    eps: float = 1e-6
    """Added to masses as ``visual_attention_score`` does."""
    num_positions: int = 8
    """Equal parts that the queries of a row are cut into, in their order, for the score by token
    position."""
    batch_size: int = 8


@dataclass(frozen=True)
class RowMasses:
    """Sums over the queries of each row, float64 on the CPU."""

    rows: tuple[str, ...]
    """Where each row with an image comes from."""
    num_without_image: int
    """Rows left out."""
    counts: Tensor
    """(rows,) queries."""
    by_head: Tensor
    """(rows, layers, heads, QUANTITIES)"""
    position_counts: Tensor
    """(rows, positions) queries in each part of the row's queries."""
    by_position: Tensor
    """(rows, positions, layers, QUANTITIES), mean over heads."""

    @property
    def num_layers(self) -> int:
        return self.by_head.shape[1]

    @property
    def num_heads(self) -> int:
        return self.by_head.shape[2]

    def sizes(self) -> dict[str, int]:
        """What was read, for JSON."""
        return {
            "rows": len(self.rows),
            "rows_without_image": self.num_without_image,
            "num_queries": int(self.counts.sum()),
            "layers": self.num_layers,
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
    """Reads every row that has an image with one forward per batch.

    Args:
        loaded: its model is attached and on its device.
        rows: with targets, where the queries are the response's.
        settings: which queries.
        name: of the progress bar.
        purpose: what the rows' answers are needed for later on, where they are; a row without one
            is then refused.

    Raises:
        RowError: a row that cannot be read, has no system turn, or lacks the response that was
            asked for; the message names it.
        ValueError: no row has an image, or masses are NaN.
    """
    tokens = SpecialTokens.from_processor(loaded.tokenizer)
    parts: list[tuple[Tensor, ...]] = []
    where: list[str] = []
    loaded.model.eval()
    with_target = settings.queries in ("response", "all")
    if settings.queries == "response":
        purpose = "queries of the response"
    for batch in image_batches(loaded, rows, settings, with_target, purpose, name):
        parts.append(_read(loaded.model, batch, tokens, settings))
        where += batch.rows
    counts, by_head, position_counts, by_position = (torch.cat(p) for p in zip(*parts, strict=True))
    return RowMasses(
        tuple(where), len(rows) - len(where), counts, by_head, position_counts, by_position
    )


def image_batches(
    loaded: Loaded,
    rows: Rows,
    settings: MassSettings,
    with_target: bool,
    purpose: str | None,
    name: str | None,
) -> Iterator[Batch]:
    """The rows that have an image, on the model's device.

    Args:
        with_target: prompts with their answers, padded on the right, where there are any; else
            prompts alone.
        purpose: as in ``collect``.
        name: of the progress bar; None for none.

    Raises:
        As ``collect``.
    """
    encoder = Encoder(
        loaded.tokenizer, loaded.image_processor, settings.system_prompt, max_length=1 << 20
    )
    device = next(loaded.model.parameters()).device
    pad_id, visual_ids = loaded.tokenizer.pad_token_id, encoder.tokens.visual
    found = False
    starts = range(0, len(rows), settings.batch_size)
    for start in progress(starts, desc=name, disable=name is None):
        stop = min(start + settings.batch_size, len(rows))
        some = [row for row in map(rows.__getitem__, range(start, stop)) if row.images]
        if not some:
            continue
        samples = [encoder(row) for row in some]
        for sample in samples:
            _require_turns(sample, encoder, purpose)
        found = True
        yield collate(samples, pad_id, visual_ids, with_target).to(device)
    if not found:
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
    """The error of a row without an answer."""
    remedy = "Give the row an answer or a final assistant message."
    return bad_row(where, "answer", f"be given for {purpose}", "got none", remedy)


def _read(
    model: nn.Module, batch: Batch, tokens: SpecialTokens, settings: MassSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """counts, by_head, position_counts, by_position of one batch."""
    with record_attention(model) as recording:
        model(**batch.inputs, use_cache=False, logits_to_keep=1)
    span = (batch.inputs["input_ids"], batch.inputs["attention_mask"])
    types = recording.key_types
    assert types is not None
    chosen = query_mask(*span, role=settings.queries, tokens=tokens) & sees_image(types)
    masses = [recording.mass[layer][chosen].cpu() for layer in sorted(recording.mass)]
    chosen = chosen.cpu()  # from here on the CPU, where sums are taken in the same order every time
    counts = chosen.sum(dim=1)
    row = chosen.nonzero()[:, 0]  # of each query
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
