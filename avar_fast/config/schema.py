"""The recipe: every setting of a run, as frozen dataclasses; checks.py says what fits together."""

from dataclasses import dataclass, field
from typing import Literal

from .checks import check_recipe
from .grpo import GrpoConfig
from .rollout import RolloutConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    path: str
    """Folder or hub name that ``from_pretrained`` loads: model, tokenizer, image processor."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of weights and activations; both half precisions keep float32 master weights in the
    optimizer, float16 scales the loss as well."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass (non-reentrant)."""
    freeze: tuple[Literal["vision", "projector", "language"], ...] = ()
    """Parts that are not trained: the vision tower, what maps its features to the text, the
    rest."""
    liger: bool = True
    """Fused RMSNorm, SwiGLU and rotary embedding on a GPU, and the head of stage sft where its
    buffers fit head_memory_gib; on CPU the plain modules run."""
    head_memory_gib: float | None = None
    """GiB that the LM head's logits may take at once: positions with a label go through it in
    slices of the vocabulary of this size. Null: a 32nd of the GPU's memory, 0.25 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    enabled: bool = False
    """Train low-rank adapters (arXiv 2106.09685) instead of the weights; checkpoints then hold the
    adapters alone and name the model they belong to."""
    rank: int = 64
    """Of new adapters, as alpha, dropout and targets; those in model.path keep their own."""
    alpha: float = 128.0
    """The adapters' product is scaled by alpha / rank."""
    dropout: float = 0.0
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Names of the linear layers of the text tower that get an adapter."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    path: str
    """A .jsonl, .json or .parquet file, a folder of parquet files or one written by ``datasets``
    (save_to_disk), or a hub name."""
    split: str = "train"
    """Split of a data set that has several."""
    limit: int | None = None
    """Take only the first rows."""
    shuffle: bool = True
    """Deal the rows in a new order every epoch; off, they come as the file has them (a
    curriculum)."""
    system_prompt: str | None = "You are a helpful assistant."
    """System turn for rows that have none; null adds none, and then no VAS can be computed."""
    max_length: int = 8192
    """Tokens in a sample: prompt and target, in stage grpo the prompt."""
    overlong: Literal["error", "drop", "cut"] = "error"
    """A row longer than max_length: stop and name it, leave it out, or cut its text (never an
    image; the longest stretches of text lose their ends). Those left out and cut are counted."""
    min_pixels: int | None = None
    """Smaller images are enlarged to so many pixels; null for what the image processor has. Saved
    with every checkpoint, as max_pixels."""
    max_pixels: int | None = None
    """Larger images are shrunk to so many pixels (28 * 28, or 32 * 32 with Qwen3-VL, make a token);
    null for what the image processor has. AVAR's released recipe has 262144."""
    train_turns: Literal["last", "all"] = "all"
    """Which assistant turns of a conversation are trained in stage sft: all, or the last. AGTO's
    queries of user turns are those of all of them, as each precedes a trained turn."""
    bad_rows: Literal["error", "skip"] = "error"
    """A row that cannot be used: stop and name it, or leave it out. Skipping reads every row and
    image before the first step and counts what is left out."""
    packing: bool = False
    """Lay samples end to end in rows of up to pack_length tokens, which do not see one another.
    train.batch_size then counts packs and train.micro_batch_size is 1."""
    pack_length: int | None = None
    """Tokens in a pack; null for max_length, and never less than it."""
    workers: int = 2
    """Processes per rank that read and encode ahead of the step; 0 does it within the step."""
    cache_gib: float = 2.0
    """Encoded samples kept in memory across epochs, over all workers of a rank."""

    @property
    def pack_capacity(self) -> int:
        return self.max_length if self.pack_length is None else self.pack_length


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    lr: float = 1e-5
    """Peak learning rate of AdamW; AVAR's released recipe has 1e-5 for SFT, the paper 1e-6 for
    GRPO."""
    vision_lr: float | None = None
    """Peak for the vision tower; null for ``lr``."""
    projector_lr: float | None = None
    """Peak for the projector; null for ``lr``."""
    weight_decay: float = 0.0
    """Of matrices; biases and norms have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Cosine falls to a tenth of the peak."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    output_dir: str
    """Checkpoints, log and the resolved recipe."""
    steps: int
    """Optimizer steps."""
    batch_size: int = 32
    """Samples (sft), packs (sft with data.packing) or prompts (grpo) per optimizer step over all
    ranks."""
    micro_batch_size: int = 1
    """Samples per forward on one rank; for grpo, responses."""
    seed: int = 0
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage."""
    offload_optimizer: bool = False
    """Keep optimizer states and float32 weights in host memory; needs ZeRO 1 or more."""
    offload_params: bool = False
    """Keep weights in host memory between uses; needs ZeRO 3."""
    save_every: int | None = None
    """Steps between checkpoints; the end is always saved."""
    keep_last: int = 2
    """Older checkpoints are deleted."""
    log_every: int = 1
    """Steps between JSONL lines."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Besides the JSONL log, which is always written."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    sequence_parallel: int = 1
    """Ranks that share the tokens of each row (DeepSpeed-Ulysses), for long rows; must divide the
    number of ranks and of attention heads. Stage sft."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    peak_tflops: float | None = None
    """Peak TFLOP/s of one device in the run's dtype, of which MFU is a share; null for the data
    sheet's of a known GPU (half precision), none elsewhere. A measured one: the rate of a large
    torch.matmul."""


@dataclass(frozen=True, kw_only=True)
class AgtoConfig:
    enabled: bool = False
    alpha: float = 0.15
    """Weight of the term that raises attention on image keys; the paper's value."""
    beta: float = 0.15
    """Weight of the term that lowers attention on system keys; the paper's value."""
    alpha_end: float | None = None
    """What alpha moves to after the warm-up; null keeps it as it is."""
    beta_end: float | None = None
    """What beta moves to after the warm-up; null keeps it as it is."""
    warmup: float = 0.0
    """Fraction of the steps over which both weights rise linearly from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the weights move to their ends."""
    decay_fraction: float | None = None
    """Fraction of the steps that the move takes, from the end of the warm-up; null for the rest of
    the run."""
    eps: float = 1e-6
    """Added to the masses before their logarithms; not 0, as a row may give a kind of key no
    mass."""
    queries: Literal["user", "prompt", "response", "all"] = "user"
    """Which rows count: user text, user turn with image tokens, response, or all."""
    layers: tuple[int, ...] | None = None
    """Text layers; null for all."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    path: str | None = None
    """Rows held out from training, as ``data.path``; null evaluates nothing."""
    split: str = "test"
    limit: int | None = None
    every: int = 100
    """Steps between evaluations; the end is always evaluated."""
    batch_size: int = 4
    """Rows at once on a rank."""
    max_new_tokens: int = 1024
    """Of the greedy completions that accuracy is taken from; 0 generates nothing."""
    checker: Literal["accuracy", "exact", "multiple_choice", "numeric"] = "accuracy"
    """Which of the rewards' rules judges them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    stage: Literal["sft", "grpo"]
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    agto: AgtoConfig = field(default_factory=AgtoConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def fields_needed(self) -> Literal["sft", "grpo"] | None:
        """The stage whose fields every row must have; None where the rewards need no answers."""
        return None if self.stage == "grpo" and not self.grpo.needs_answers else self.stage

    @property
    def units_per_step(self) -> int:
        """Rows, or packs, that a step takes from the data over all ranks."""
        rounds = self.grpo.sampling_rounds if self.stage == "grpo" else 1
        return self.train.batch_size * rounds

    @property
    def num_updates(self) -> int:
        """Optimizer steps of the whole run."""
        updates = self.grpo.updates_per_rollout if self.stage == "grpo" else 1
        return self.train.steps * updates

    def __post_init__(self) -> None:
        check_recipe(self)
