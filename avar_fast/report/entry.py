"""What the page of a study shows of one model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportEntry:
    """A model and its training run."""

    name: str
    vas_layers: list[int]
    """The text layers with attention, by their index in the model: the rows of ``vas_table``."""
    vas_table: dict[str, list[list[float]]]
    """Visual attention score per layer and head: {"log_ratio", "share": (layers, heads)}."""
    log: list[dict]
    """JSONL lines of its training run."""
