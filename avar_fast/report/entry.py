"""What the page of a study shows of one model."""

from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class AttentionMap:
    """One image of one row and how the response looked at it."""

    image: Image.Image
    heat: Tensor
    """(rows, columns) share of the response's attention per visual token, mean over the layers
    with attention and their heads."""
    question: str
    response: str
    answer: str


@dataclass(frozen=True)
class ReportEntry:
    """One row of the study."""

    name: str
    accuracy: float
    """Share of held-out rows whose answer is right."""
    accuracy_by_style: dict[str, float]
    vas: dict[str, float]
    """The three forms."""
    vas_layers: list[int]
    """The text layers with attention, by their index in the model: the rows of ``vas_table``."""
    vas_table: dict[str, list[list[float]]]
    """The three forms per layer and head."""
    eval_seconds: float
    train_seconds: float
    log: list[dict]
    """JSONL lines of its training run."""
    maps: list[AttentionMap] = field(default_factory=list)
