"""The section ``data``."""

from dataclasses import dataclass
from typing import Literal

from .ranges import (
    named_values,
    require_not_negative,
    require_pixels,
    require_positive,
    require_within,
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The rows to train on, and how they become samples."""

    path: str
    """A .jsonl, .json or .parquet file, a folder of parquet files, a folder written by ``datasets``
    (save_to_disk), or a hub name."""
    split: str = "train"
    """Split to take of a data set that has several."""
    limit: int | None = None
    """Take only this many rows, from the first on. Null takes all."""
    shuffle: bool = True
    """Deal the rows in a new random order every epoch. If false, rows come in the order of the
    file (a curriculum)."""
    system_prompt: str | None = "You are a helpful assistant."
    """System turn for rows that have none. Null adds none; VAS, AGTO and VARS then cannot be
    computed."""
    max_length: int = 8192
    """Largest number of tokens in a sample: prompt and target in stage sft, the prompt alone in
    stage grpo."""
    overlong: Literal["error", "drop", "cut"] = "error"
    """What to do with a row longer than ``data.max_length``. ``error`` stops and names the row.
    ``drop`` leaves it out. ``cut`` shortens its text: the longest passages lose their ends, images
    stay whole. Rows that were dropped or cut are counted."""
    min_pixels: int | None = None
    """Smaller images are enlarged to this many pixels. Null takes the image processor's limit. Both
    pixel limits are saved with every checkpoint."""
    max_pixels: int | None = None
    """Larger images are shrunk to this many pixels. Null takes the image processor's limit. One
    visual token covers 28 x 28 pixels, or 32 x 32 with Qwen3-VL. AVAR's released recipe has
    262144."""
    train_turns: Literal["last", "all"] = "all"
    """Which assistant turns of a conversation are trained in stage sft: the last one, or all. AGTO
    with ``agto.queries`` user or prompt reads all user turns in both cases."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with a row that cannot be used. ``error`` stops and names the row. ``skip`` reads
    every row and image before the first step, leaves bad rows out and counts them."""
    packing: bool = False
    """Lay samples end to end in packs of up to ``data.pack_length`` tokens. The samples of a pack
    do not see one another. ``train.batch_size`` then counts packs, and ``train.micro_batch_size``
    must be 1. Stage sft only."""
    pack_length: int | None = None
    """Largest number of tokens in a pack, at least ``data.max_length``. Null takes
    ``data.max_length``."""
    workers: int = 2
    """Processes per rank that read and encode rows ahead of the step. 0 does this work within the
    step."""
    cache_gib: float = 2.0
    """GiB of encoded samples that a rank keeps in memory across epochs, over all of its workers. 0
    keeps none."""

    def __post_init__(self) -> None:
        positive = "max_length", "limit", "pack_length", "min_pixels", "max_pixels"
        require_positive(named_values("data", self, *positive))
        require_not_negative(named_values("data", self, "cache_gib", "workers"))
        require_within({"data.cache_gib": (self.cache_gib, 0, 1e6)})
        if self.pack_capacity < self.max_length:
            raise ValueError(
                f"data.pack_length must be at least data.max_length = {self.max_length}, so that"
                f" every sample fits; got {self.pack_length}."
            )
        require_pixels(self.min_pixels, self.max_pixels)

    @property
    def pack_capacity(self) -> int:
        """Tokens that fit into a pack."""
        return self.max_length if self.pack_length is None else self.pack_length
