"""The section ``train``."""

from dataclasses import dataclass

from .ranges import LARGEST_COUNT, named_values, require_positive, require_within


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length of the run, batches and checkpoints."""

    output_dir: str
    """Folder for checkpoints, logs and the resolved recipe."""
    steps: int
    """Steps of the run, each on one batch. A step is one optimizer step, or
    ``grpo.updates_per_rollout`` of them in stage grpo."""
    batch_size: int = 32
    """Size of a batch over all ranks: samples in stage sft, packs with ``data.packing``, prompts in
    stage grpo."""
    micro_batch_size: int = 1
    """Samples (stage sft) or completions (stage grpo) in one forward on one rank. A larger number
    is faster and takes more memory. With ``grpo.shared_prompts`` it
    counts rows of the largest size, whose tokens are the default of ``grpo.pack_length``."""
    micro_batch_tokens: int | None = None
    """Stage grpo with ``grpo.shared_prompts=false``: lay prompts with their completions end to end,
    up to this many tokens in one forward on one rank, instead of ``train.micro_batch_size`` padded
    rows. At least ``data.max_length + grpo.max_new_tokens``."""
    seed: int = 0
    """Seed of data order, dropout and sampling."""
    save_every: int | None = None
    """Steps between checkpoints. Null saves at the end only; the end is always saved."""
    keep_last: int = 2
    """Number of checkpoints to keep. Older ones are deleted."""

    def __post_init__(self) -> None:
        positive = (
            "steps", "batch_size", "micro_batch_size", "micro_batch_tokens", "keep_last",
            "save_every",
        )  # fmt: skip
        require_positive(named_values("train", self, *positive))
        require_within({"train.seed": (self.seed, -LARGEST_COUNT, LARGEST_COUNT)})
