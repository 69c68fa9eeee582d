"""Builds the feed of a run from the recipe's data section: rows, selection, order and batches."""

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
    """Builds this rank's feed; all ranks call it together.

    Args:
        recipe: the recipe of the run.
        loaded: the model with its tokenizer and image processor.
        collator: makes batches of samples.
        start: the first step to run, and the units that the steps before it have used.
        ranks_per_row: number of neighboring ranks that share rows.
        resumed: the checkpoint that the run resumes from.

    Returns:
        The feed; the selection of rows, None if all rows are used unmeasured; the fingerprint of
        the rows and their order; a line for the log, empty if there is nothing to report.

    Raises:
        RowError: a row cannot be used and the recipe does not allow skipping it.
        ValueError: batch sizes do not divide, no row is left to train on, or the rows are not those
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
    if not skips:  # fail before the first step if the data set lacks a field in all rows
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
    fingerprint = on_first_rank(lambda: fingerprint_of(rows, order))
    message = ""
    if resumed is not None:
        units, message = resumed.units_dealt(start[1], rows, fingerprint)
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
    if recipe.stage == "grpo":  # takes single prompts and batches its completions later
        finish, units = _unbatched, 1
    pin = torch.cuda.is_available()
    feed = Feed(stream, units, finish, start[0], train.steps, data.workers, pin)
    return feed, selection, fingerprint, message


def _select(recipe: Recipe, rows: Rows, encoder: Encoder, rank: int, world_size: int) -> Selection:
    """Measures this rank's share of the rows and selects from all shares; all ranks get the same
    selection."""
    data = recipe.data
    own_indices = range(rank, len(rows), world_size)
    measurements = measure_rows(
        rows, encoder, own_indices, data.workers, decode=data.bad_rows == "skip"
    )
    bar = progress(
        measurements,
        desc="measuring rows",
        total=len(own_indices),
        disable=rank > 0,
        leave=False,
    )
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, list(bar))
    return select([m for share in shares for m in share], data.bad_rows, data.overlong)


def _unbatched(samples: list[Sample]) -> list[Sample]:
    return samples
