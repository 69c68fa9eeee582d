"""The recipe of a synthesis: three steps, budget, gates, as frozen dataclasses with checks."""

from dataclasses import dataclass, field
from typing import Literal

from ..config.ranges import (
    named_values,
    require_not_negative,
    require_pixels,
    require_positive,
    require_share,
)
from .patterns import ANCHORS, DESCRIPTION_WORDS, REFUSALS, check_patterns, scripts
from .step_config import STEPS, StepConfig


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """Rows to write reasoning for. Section ``data``."""

    path: str
    """Rows with image, question and answer, in any form that the trainer's ``data.path`` takes."""
    split: str = "train"
    """Split to use if the data set has several."""
    limit: int | None = None
    """Take only this many rows, from the first on. Null takes all."""
    min_pixels: int | None = None
    """Smaller images are enlarged to this many pixels before they are sent and kept. Use the
    trainer's ``data.min_pixels``: the describing model then sees what the trained model will
    see. Null leaves them as they are."""
    max_pixels: int | None = None
    """Larger images are shrunk to this many pixels. Null leaves them as they are."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with a row that has no answer or whose image cannot be read. ``error`` stops
    before the first request and names the row. ``skip`` rejects the row with the reason."""
    license: str = "not given"
    """License of the rows and their images, for the data card."""

    def __post_init__(self) -> None:
        require_positive(named_values("data", self, "limit", "min_pixels", "max_pixels"))
        require_pixels(self.min_pixels, self.max_pixels)


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """What all runs of the folder together may cost. Section ``budget``."""

    usd: float | None = None
    """Largest cost in USD at the steps' prices. Null for no limit. A request is not sent if it
    could exceed the limit. Its prompt is estimated (one token per 4 characters or 28 x 28 pixels)
    and its answer counted at ``max_tokens``. Requests in progress when a run is killed are not
    counted."""
    tokens: int | None = None
    """Largest number of tokens, sent and received. Null for no limit."""

    def __post_init__(self) -> None:
        require_positive(named_values("budget", self, "usd", "tokens"))


@dataclass(frozen=True, kw_only=True)
class GatesConfig:
    """What a text must pass to become a training row. Section ``gates``."""

    checker: Literal["accuracy", "exact", "multiple_choice", "numeric"] = "accuracy"
    """The reward rule that decides whether an answer agrees with the row's. ``accuracy`` compares
    answers by their kind (docs/answers.md). ``exact`` requires the same text or number.
    ``multiple_choice`` requires the same letter. ``numeric`` allows a deviation of 1 %."""
    min_chars: int = 200
    """Smallest number of characters in the reasoning."""
    max_chars: int = 24000
    """Largest number of characters in the reasoning."""
    min_anchors: int = 2
    """Smallest number of visual anchors in the reasoning."""
    min_anchors_per_1000_chars: float = 0.5
    """Smallest density of visual anchors in the reasoning."""
    anchors: tuple[str, ...] = ANCHORS
    """Regular expressions of what counts as a visual anchor. Case is ignored."""
    description_words: tuple[str, ...] = DESCRIPTION_WORDS
    """Regular expressions of words that show that a description was read."""
    refusals: tuple[str, ...] = REFUSALS
    """Regular expressions of the beginning of a refusal."""
    script: str | None = "LATIN"
    """Unicode script of the reasoning's letters (LATIN, CJK, CYRILLIC, ...). Null allows any. The
    language itself is not checked."""
    min_script_share: float = 0.9
    """Smallest share of letters in ``gates.script``."""
    max_similarity: float | None = 0.9
    """Largest Jaccard similarity of five-word shingles of two rows. Above it the later row is
    rejected as a near-duplicate. Null keeps all."""

    def __post_init__(self) -> None:
        minimums = ("min_chars", "min_anchors", "min_anchors_per_1000_chars")
        require_not_negative(named_values("gates", self, *minimums))
        if self.max_chars < self.min_chars:
            raise ValueError(
                f"gates.max_chars must be at least gates.min_chars = {self.min_chars}; got"
                f" {self.max_chars}."
            )
        require_share(named_values("gates", self, "min_script_share", "max_similarity"))
        if self.script is not None and self.script not in scripts():
            raise ValueError(
                "gates.script must be the first word of letters' names in Unicode, as LATIN, CJK,"
                f" CYRILLIC or HANGUL are; got {self.script!r}."
            )
        for name in ("anchors", "description_words", "refusals"):
            check_patterns(f"gates.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class SynthesisRecipe:
    """Everything that a synthesis run depends on."""

    output_dir: str
    """Folder for finished steps, rows, rejected rows, images, report and data card."""
    data: RowsConfig
    """Rows to write reasoning for."""
    describe: StepConfig
    """A vision model that describes the image."""
    reason: StepConfig
    """A reasoning model that thinks from the description alone."""
    rewrite: StepConfig
    """A model that replaces references to the description by references to the image."""
    samples: int = 1
    """Chains of thought per row. The best one that passes the gates is kept."""
    max_failures: int = 20
    """The run stops after this many requests in a row have failed permanently."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """What all runs together may cost."""
    gates: GatesConfig = field(default_factory=GatesConfig)
    """What a text must pass."""

    def step(self, name: str) -> StepConfig:
        """Settings of the step ``name``."""
        return getattr(self, name)

    def __post_init__(self) -> None:
        require_positive({"samples": self.samples, "max_failures": self.max_failures})
        for name in STEPS:
            self.step(name).check(name)
