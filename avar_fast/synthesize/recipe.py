"""The recipe of a synthesis: three stages, budget, gates, as frozen dataclasses with checks."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

STAGES = ("describe", "reason", "rewrite")
LAB = "lab"

ANCHORS = (
    r"\blook(?:ing|s)?\b[^.?!]{0,40}?\b(?:again|back|closely|closer|carefully|at)\b",
    r"\b(?:check|re-?check|examin|inspect|revisit|return|zoom)\w*\b[^.?!]{0,60}?"
    r"\b(?:image|picture|figure|diagram|graph|chart|photo)\b",
    r"\b(?:i|we|you) (?:can )?see\b",
    r"\bin the (?:image|picture|figure|diagram|graph|chart|photo)\b",
)
DESCRIPTION_WORDS = (
    r"\b(?:the|this|that|your|given|provided|structured|image|visual|scene)\s+description\b",
    r"\bdescription (?:says|states|mentions|shows|gives|lists|indicates|notes)\b",
    r"\bas described\b",
)
REFUSALS = (
    r"^\W*(?:i'm|i am) (?:sorry|unable|afraid)\b",
    r"^\W*i (?:can(?:no|')t|will not|won't) (?:help|assist|provide|comply|answer|do that)\b",
    r"^\W*as an ai\b",
)


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    path: str
    """Rows with image, question and answer, in any form the trainer's ``data.path`` takes."""
    split: str = "train"
    limit: int | None = None
    """Take only the first rows."""
    bad_rows: Literal["error", "skip"] = "error"
    """A row without an answer or with an image that cannot be read: stop before the first request
    and name it, or reject it with the reason."""
    licence: str = "not given"
    """Of the rows and their images; goes into the data card."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    base_url: str
    """Of an endpoint that speaks OpenAI's HTTP protocol, as far as /v1; ``lab`` starts the lab's
    rule-based writer for the time of the run."""
    model: str
    key_env: str | None = None
    """Environment variable that holds the key; null for an endpoint that needs none. Keys are read
    from there and written nowhere."""
    prompt: str | None = None
    """YAML file with version, system and user; null for the one that ships with the package."""
    temperature: float | None = 0.7
    """Null leaves it to the endpoint, as some models want."""
    top_p: float | None = None
    max_tokens: int = 8192
    """Tokens of an answer; one that is cut there is rejected."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Which name the endpoint knows it by."""
    seed: int | None = None
    """Sent with each request, plus the number of the sample; null sends none."""
    take_reasoning: bool = False
    """Put what the endpoint returns apart as ``reasoning_content`` or ``reasoning`` in
    front of the answer."""
    extra_body: dict = field(default_factory=dict)
    """Further fields of the request's JSON."""
    stream: bool = True
    """Receive the answer in pieces, so that no proxy closes a connection that seems idle."""
    concurrency: int = 8
    """Requests at once."""
    requests_per_minute: float | None = None
    """Null for no limit; what an endpoint says with 429 and Retry-After is kept to anyway."""
    timeout_s: float = 600.0
    """Of one request, from sending to its last piece."""
    retries: int = 5
    """After a request that failed and may succeed: 408, 409, 429, 5xx, time-outs, lost connections,
    cut streams, malformed or empty answers."""
    backoff_s: float = 1.0
    """Wait before the first retry; doubles with each, with jitter, up to max_backoff_s."""
    max_backoff_s: float = 60.0
    input_price: float = 0.0
    """USD per million tokens sent."""
    output_price: float = 0.0
    """USD per million tokens received."""
    licence: str = "not given"
    """Terms of the model's output; go into the data card."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    usd: float | None = None
    """No request is sent that could take the cost over all runs of the folder above this."""
    tokens: int | None = None
    """The same in tokens, sent and received."""


@dataclass(frozen=True, kw_only=True)
class GatesConfig:
    min_chars: int = 200
    """Characters of the reasoning."""
    max_chars: int = 24000
    min_anchors: int = 2
    """Visual anchors in the reasoning."""
    min_anchors_per_1000_chars: float = 0.5
    anchors: tuple[str, ...] = ANCHORS
    """Regular expressions, case ignored, of what counts as a visual anchor."""
    description_words: tuple[str, ...] = DESCRIPTION_WORDS
    """Regular expressions of what gives away that a description was read."""
    refusals: tuple[str, ...] = REFUSALS
    """Regular expressions of how a refusal starts."""
    script: str | None = "LATIN"
    """Unicode script that the letters of the reasoning are in (LATIN, CJK, CYRILLIC, ...); null for
    any."""
    min_script_share: float = 0.9
    """Share of letters in that script."""
    max_similarity: float | None = 0.9
    """Jaccard similarity of five-word shingles above which the later of two rows is a
    near-duplicate; null keeps them all."""


@dataclass(frozen=True, kw_only=True)
class SynthesisRecipe:
    output_dir: str
    """Finished stages, rows, rejected rows, images, report and data card."""
    data: RowsConfig
    describe: StageConfig
    reason: StageConfig
    rewrite: StageConfig
    samples: int = 1
    """Chains of thought per row, of which the best that passes the gates is kept."""
    max_failures: int = 20
    """Requests in a row that failed for good, after which the run stops."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)

    def stage(self, name: str) -> StageConfig:
        return getattr(self, name)

    def __post_init__(self) -> None:
        positive = {
            "samples": self.samples,
            "max_failures": self.max_failures,
            "data.limit": self.data.limit,
            "budget.usd": self.budget.usd,
            "budget.tokens": self.budget.tokens,
        }
        not_negative: dict[str, float | None] = {
            "gates.min_chars": self.gates.min_chars,
            "gates.min_anchors": self.gates.min_anchors,
            "gates.min_anchors_per_1000_chars": self.gates.min_anchors_per_1000_chars,
        }
        for name in STAGES:
            stage = self.stage(name)
            _check_url(f"{name}.base_url", stage.base_url)
            positive |= {
                f"{name}.max_tokens": stage.max_tokens,
                f"{name}.concurrency": stage.concurrency,
                f"{name}.timeout_s": stage.timeout_s,
                f"{name}.backoff_s": stage.backoff_s,
                f"{name}.max_backoff_s": stage.max_backoff_s,
                f"{name}.requests_per_minute": stage.requests_per_minute,
            }
            not_negative |= {
                f"{name}.retries": stage.retries,
                f"{name}.input_price": stage.input_price,
                f"{name}.output_price": stage.output_price,
                f"{name}.temperature": stage.temperature,
            }
        for key, value in positive.items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{key} must be positive and finite; got {value}.")
        for key, value in not_negative.items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{key} must be 0 or more and finite; got {value}.")
        self._check_gates()

    def _check_gates(self) -> None:
        gates = self.gates
        if gates.max_chars < gates.min_chars:
            raise ValueError(
                f"gates.max_chars must be at least gates.min_chars = {gates.min_chars}; got"
                f" {gates.max_chars}."
            )
        for name, share in (
            ("min_script_share", gates.min_script_share),
            ("max_similarity", gates.max_similarity),
        ):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"gates.{name} must be in (0, 1]; got {share}.")
        for name in ("anchors", "description_words", "refusals"):
            for pattern in getattr(gates, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(
                        f"gates.{name} must hold regular expressions; {pattern!r} is none: {error}."
                    ) from None


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if url != LAB and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError(f"{name} must be an http(s) address or {LAB!r}; got {url!r}.")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"{name} must hold no user, password or query, which would end up in the output; put"
            " the key into an environment variable and name it in key_env."
        )
