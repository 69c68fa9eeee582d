"""The section ``model``."""

from dataclasses import dataclass
from typing import Literal, get_args

from .ranges import named_values, require_positive, require_within

Part = Literal["vision", "projector", "language"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model that is trained, and how its layers compute."""

    path: str
    """Folder or hub name that ``from_pretrained`` loads. It holds the model, the tokenizer and the
    image processor."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of weights and activations. With bfloat16 and float16 the optimizer keeps float32 master
    weights. With float16 the loss is scaled as well."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass instead of keeping their activations (non-reentrant).
    Saves memory, costs about one more forward."""
    freeze: tuple[Part, ...] = ()
    """Parts that are not trained. ``vision`` is the vision tower, ``projector`` maps its features
    to the text model, ``language`` is everything else."""
    liger: bool = True
    """Use Liger's fused kernels on a GPU: RMSNorm, SwiGLU, rotary embedding and, in stage sft, the
    LM head where its buffers fit ``model.head_memory_gib``. A CPU runs the plain modules."""
    head_memory_gib: float | None = None
    """GiB that the logits of the LM head may take at once. Positions with a label go through the
    head in slices of the vocabulary of this size. Null takes 1/32 of the GPU's memory, or 0.25 on a
    CPU."""

    def __post_init__(self) -> None:
        require_positive(named_values("model", self, "head_memory_gib"))
        # Whether it holds a column of logits shows with the first batch, which says so.
        require_within({"model.head_memory_gib": (self.head_memory_gib, 2**-30, 1e6)})
        if set(self.freeze) == set(get_args(Part)):
            raise ValueError("model.freeze must leave a part to train; got all three.")
