"""The recipe of a synthesis: three steps, budget, gates, as frozen dataclasses with checks."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from ..config.ranges import require_not_negative, require_pixels, require_positive
from .patterns import ANCHORS, DESCRIPTION_WORDS, REFUSALS, check_patterns, scripts

STEPS = ("describe", "reason", "rewrite")
LAB = "lab"
# Of a request's JSON, what other settings say, what budget and accounting rest on, and keys.
OWN_FIELDS = (
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "stream", "stream_options", "n",
)  # fmt: skip
_KEY_FIELD = re.compile(r"(?i)api[-_ ]?key|authorization|password|secret|access[-_ ]?token")


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    path: str
    """Rows with image, question and answer, in any form the trainer's ``data.path`` takes."""
    split: str = "train"
    limit: int | None = None
    """Take only the first rows."""
    min_pixels: int | None = None
    """Smaller images are enlarged to so many pixels before they are sent and kept; as the trainer's
    ``data.min_pixels``, so that the describing model sees what the trained one will see."""
    max_pixels: int | None = None
    """Larger ones are shrunk to so many pixels."""
    bad_rows: Literal["error", "skip"] = "error"
    """A row without an answer or with an image that cannot be read: stop before the first request
    and name it, or reject it with the reason."""
    license: str = "not given"
    """Of the rows and their images; goes into the data card."""


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    base_url: str
    """Of an endpoint that speaks OpenAI's HTTP protocol, as far as /v1; ``lab`` starts the lab's
    rule-based writer for the time of the run."""
    model: str
    """As the endpoint calls it."""
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
    """Further fields of the request's JSON, in no place of those that have a setting here."""
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
    license: str = "not given"
    """Terms of the model's output; go into the data card."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    usd: float | None = None
    """No request is sent that could take the cost over all runs of the folder above this, at the
    step's prices: its prompt by a rule of thumb (4 characters or 28 x 28 pixels a token), its
    answer at max_tokens. What was under way when a run was killed is not known and not counted."""
    tokens: int | None = None
    """The same in tokens, sent and received."""


@dataclass(frozen=True, kw_only=True)
class GatesConfig:
    checker: Literal["accuracy", "exact", "multiple_choice", "numeric"] = "accuracy"
    """The rule of the rewards by which an answer is the row's: mathematically equal (math-verify),
    equal as text or as a number, its letter, or its number within 1 %."""
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
    """Unicode script that the letters of the reasoning are in (LATIN, CJK, CYRILLIC, ...), which is
    all that is checked of their language; null for any."""
    min_script_share: float = 0.9
    """Share of letters in that script."""
    max_similarity: float | None = 0.9
    """Jaccard similarity of five-word shingles above which the later of two rows is a
    near-duplicate; null keeps them all."""


@dataclass(frozen=True, kw_only=True)
class SynthesisRecipe:
    output_dir: str
    """Finished steps, rows, rejected rows, images, report and data card."""
    data: RowsConfig
    describe: StepConfig
    reason: StepConfig
    rewrite: StepConfig
    samples: int = 1
    """Chains of thought per row, of which the best that passes the gates is kept."""
    max_failures: int = 20
    """Requests in a row that failed for good, after which the run stops."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)

    def step(self, name: str) -> StepConfig:
        return getattr(self, name)

    def __post_init__(self) -> None:
        positive: dict[str, float | None] = {
            "samples": self.samples,
            "max_failures": self.max_failures,
            "data.limit": self.data.limit,
            "data.min_pixels": self.data.min_pixels,
            "data.max_pixels": self.data.max_pixels,
            "budget.usd": self.budget.usd,
            "budget.tokens": self.budget.tokens,
        }
        not_negative: dict[str, float | None] = {
            "gates.min_chars": self.gates.min_chars,
            "gates.min_anchors": self.gates.min_anchors,
            "gates.min_anchors_per_1000_chars": self.gates.min_anchors_per_1000_chars,
        }
        for name in STEPS:
            step = self.step(name)
            _check_step(name, step)
            positive |= {
                f"{name}.max_tokens": step.max_tokens,
                f"{name}.concurrency": step.concurrency,
                f"{name}.timeout_s": step.timeout_s,
                f"{name}.backoff_s": step.backoff_s,
                f"{name}.max_backoff_s": step.max_backoff_s,
                f"{name}.requests_per_minute": step.requests_per_minute,
            }
            not_negative |= {
                f"{name}.retries": step.retries,
                f"{name}.input_price": step.input_price,
                f"{name}.output_price": step.output_price,
                f"{name}.temperature": step.temperature,
            }
        require_positive({key: x for key, x in positive.items() if x is not None})
        require_not_negative({key: x for key, x in not_negative.items() if x is not None})
        self._check_gates()
        require_pixels(self.data.min_pixels, self.data.max_pixels)

    def _check_gates(self) -> None:
        gates = self.gates
        if gates.max_chars < gates.min_chars:
            raise ValueError(
                f"gates.max_chars must be at least gates.min_chars = {gates.min_chars}; got"
                f" {gates.max_chars}."
            )
        _check_share("gates.min_script_share", gates.min_script_share)
        _check_share("gates.max_similarity", gates.max_similarity)
        if gates.script is not None and gates.script not in scripts():
            raise ValueError(
                "gates.script must be the first word of letters' names in Unicode, as LATIN, CJK,"
                f" CYRILLIC or HANGUL are; got {gates.script!r}."
            )
        for name in ("anchors", "description_words", "refusals"):
            check_patterns(f"gates.{name}", getattr(gates, name))


def sample_of(step: str, sample: int) -> int:
    """The number a step's text is kept by: all samples of a row share its description."""
    return 0 if step == "describe" else sample


def _check_step(name: str, step: StepConfig) -> None:
    _check_url(f"{name}.base_url", step.base_url)
    if not step.model:
        raise ValueError(f"{name}.model must name a model of the endpoint; got an empty text.")
    if step.key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", step.key_env, re.ASCII):
        # Not repeated: it may well be the key.
        raise ValueError(
            f"{name}.key_env must be the name of an environment variable, never the key; got what"
            " is none. Use: export MY_KEY=..., and name MY_KEY."
        )
    _check_share(f"{name}.top_p", step.top_p)
    for key in step.extra_body:
        if key in OWN_FIELDS:
            raise ValueError(
                f"{name}.extra_body must leave {key} to the setting of its own, or out; got it."
            )
        if _KEY_FIELD.search(key):
            raise ValueError(
                f"{name}.extra_body must hold no key, it is written into the output; got {key}. Put"
                " the key into an environment variable and name it in key_env."
            )


def _check_share(name: str, share: float | None) -> None:
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"{name} must be in (0, 1]; got {share}.")


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        raise ValueError(f"{name} must be an http(s) address or {LAB!r}; got {url!r}.") from None
    if url != LAB and not good:
        raise ValueError(f"{name} must be an http(s) address or {LAB!r}; got {url!r}.")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"{name} must hold no user, password or query, which would end up in the output; put"
            " the key into an environment variable and name it in key_env."
        )
