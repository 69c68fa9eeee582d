"""From the recipe's data section to the feed of a run: rows, their selection, order and batches."""

from collections.abc import Callable
from typing import Any

import torch

from ..config import Recipe
from ..data import (
    Collator,
    Encoder,
    Feed,
    PackOrder,
    RowOrder,
    Rows,
    Sample,
    SampleStream,
    Selection,
    load_rows,
    measure_rows,
    select,
)
from ..data.fingerprint import Fingerprint, fingerprint_of
from ..loading import Loaded
from ..progress import progress
from .resume import Resumed, on_first_rank


def make_feed(
    recipe: Recipe,
    loaded: Loaded,
    collator: Collator,
    start: tuple[int, int],
    ranks_per_row: int = 1,
    resumed: Resumed | None = None,
) -> tuple[Feed, Selection | None, Fingerprint, str]:
    """The feed of this rank, which rows it deals where that had to be found out first, the
    fingerprint of rows and order, and what to say of them.

    Args:
        start: the first step to make, and the units that the steps before it have dealt.
        ranks_per_row: neighboring ranks that share rows.
        resumed: the checkpoint that the run goes on from.

    Raises:
        RowError: a row that cannot be used and that the recipe does not allow to leave out.
        ValueError: batch sizes that do not divide, no row to train on, or rows that are not those
            of the checkpoint.
    """
    data, train = recipe.data, recipe.train
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    skips = data.bad_rows == "skip"
    rows = load_rows(data.path, data.split, data.limit, keep_bad_lines=skips)
    encoder = Encoder(
        loaded.tokenizer,
        loaded.image_processor,
        data.system_prompt,
        data.max_length,
        data.overlong,
        recipe.fields_needed,
        with_target=recipe.stage == "sft",
        train_turns=data.train_turns,
    )
    if not skips:  # a data set that lacks them altogether should not get as far as a step
        encoder.require_fields(rows[0])
    selection = None
    if data.packing or skips or data.overlong != "error":
        selection = _select(recipe, rows, encoder, rank, world_size)
    if data.packing:
        assert selection is not None
        order: Any = PackOrder(
            selection.usable, selection.lengths, data.pack_capacity, train.seed, data.shuffle
        )
    else:
        usable = range(len(rows)) if selection is None else selection.usable
        order = RowOrder(usable, train.seed, data.shuffle)
    found = on_first_rank(lambda: fingerprint_of(rows, order))
    said = ""
    if resumed is not None:
        units, said = resumed.units_dealt(start[1], rows, found)
        start = start[0], units
    cache_bytes = int(data.cache_gib * 2**30) // max(data.workers, 1)
    stream = SampleStream(
        rows,
        encoder,
        order,
        recipe.units_per_step,
        rank // ranks_per_row,
        world_size // ranks_per_row,
        cache_bytes,
        start,
    )
    finish: Callable[[list[Sample]], Any] = collator.pack if data.packing else collator.pad
    units = train.micro_batch_size
    if recipe.stage == "grpo":  # takes prompts, and batches what it samples from them
        finish, units = _as_they_are, 1
    pin = torch.cuda.is_available()
    feed = Feed(stream, units, finish, start[0], train.steps, data.workers, pin)
    return feed, selection, found, said


def _select(recipe: Recipe, rows: Rows, encoder: Encoder, rank: int, world_size: int) -> Selection:
    """Each rank measures its share of the rows; all come to the same selection."""
    data = recipe.data
    own = range(rank, len(rows), world_size)
    measuring = measure_rows(rows, encoder, own, data.workers, decode=data.bad_rows == "skip")
    bar = progress(measuring, desc="measuring rows", total=len(own), disable=rank > 0, leave=False)
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, list(bar))
    return select([m for share in shares for m in share], data.bad_rows, data.overlong)


def _as_they_are(samples: list[Sample]) -> list[Sample]:
    return samples
