"""The settings of one step of a synthesis, and the names of the steps."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from ..config.ranges import named_values, require_not_negative, require_positive, require_share

STEPS = ("describe", "reason", "rewrite")
LAB = "lab"
# Fields of a request's JSON that have their own settings, or on which the budget and the accounting
# depend.
OWN_FIELDS = (
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "stream", "stream_options", "n",
)  # fmt: skip
_KEY_FIELD = re.compile(r"(?i)api[-_ ]?key|authorization|password|secret|access[-_ ]?token")


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """A model at an endpoint, and the settings of requests to it. Sections ``describe``, ``reason``
    and ``rewrite``."""

    base_url: str
    """Address of an endpoint that speaks OpenAI's HTTP protocol, up to and including /v1. ``lab``
    starts the lab's rule-based writer for the time of the run."""
    model: str
    """The model's name at the endpoint."""
    key_env: str | None = None
    """Environment variable that holds the key. Null for an endpoint that needs none. Keys are read
    from the environment and written nowhere."""
    prompt: str | None = None
    """YAML file with the keys version, system and user. Null takes the prompt that ships with the
    package."""
    temperature: float | None = 0.7
    """Sampling temperature. Null leaves it to the endpoint, as some models require."""
    top_p: float | None = None
    """Nucleus sampling: the share of probability to sample from. Null leaves it to the endpoint."""
    max_tokens: int = 8192
    """Largest number of tokens in an answer. An answer that is cut there is rejected."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name under which the endpoint takes ``max_tokens``."""
    seed: int | None = None
    """Seed of the first sample; the n-th sample sends seed + n. Null sends none."""
    take_reasoning: bool = False
    """Whether to put the reasoning that the endpoint returns in a separate field, such as
    ``reasoning_content``, in front of the answer."""
    extra_body: dict = field(default_factory=dict)
    """Further fields of the request's JSON. Fields that have a setting here are refused."""
    stream: bool = True
    """Receive the answer in pieces, so that no proxy closes a connection that seems idle."""
    concurrency: int = 8
    """Requests at the same time."""
    requests_per_minute: float | None = None
    """Rate limit. Null for none. Waits that the endpoint asks for with 429 and Retry-After are
    respected in any case."""
    timeout_s: float = 600.0
    """Seconds for one request, from sending it to the last piece of its answer."""
    retries: int = 5
    """Further attempts of a request that failed and may succeed: 408, 409, 429, 5xx, time-outs,
    lost connections, cut streams, malformed or empty answers."""
    backoff_s: float = 1.0
    """Seconds before the first retry. They double with each retry, with jitter, up to
    ``max_backoff_s``."""
    max_backoff_s: float = 60.0
    """Largest number of seconds before a retry."""
    input_price: float = 0.0
    """USD per million tokens sent."""
    output_price: float = 0.0
    """USD per million tokens received."""
    license: str = "not given"
    """Terms of the model's output, for the data card."""

    def check(self, name: str) -> None:
        """Checks the values. The three steps share this class, so a step does not know its name.

        Args:
            name: name of the step, for the message.

        Raises:
            ValueError: a value is invalid.
        """
        _check_url(f"{name}.base_url", self.base_url)
        if not self.model:
            raise ValueError(f"{name}.model must name a model of the endpoint; got an empty text.")
        if self.key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_env, re.ASCII):
            # The value is not repeated: it may well be the key.
            raise ValueError(
                f"{name}.key_env must be the name of an environment variable, never the key; got"
                " what is none. Use: export MY_KEY=..., and name MY_KEY."
            )
        for key in self.extra_body:
            if key in OWN_FIELDS:
                raise ValueError(
                    f"{name}.extra_body must leave {key} to the setting of its own, or out; got it."
                )
            if _KEY_FIELD.search(key):
                raise ValueError(
                    f"{name}.extra_body must hold no key, it is written into the output; got"
                    f" {key}. Put the key into an environment variable and name it in key_env."
                )
        positive = ("max_tokens", "concurrency", "timeout_s", "backoff_s", "max_backoff_s")
        require_positive(named_values(name, self, *positive, "requests_per_minute"))
        not_negative = ("retries", "input_price", "output_price", "temperature")
        require_not_negative(named_values(name, self, *not_negative))
        require_share(named_values(name, self, "top_p"))


def sample_of(step: str, sample: int) -> int:
    """The sample number under which a step's text is stored. All samples of a row share its
    description, which is stored under 0."""
    return 0 if step == "describe" else sample


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # unclosed brackets, or a port that is not a number
        raise ValueError(f"{name} must be an http(s) address or {LAB!r}; got {url!r}.") from None
    if url != LAB and not good:
        raise ValueError(f"{name} must be an http(s) address or {LAB!r}; got {url!r}.")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"{name} must hold no user, password or query, which would end up in the output; put"
            " the key into an environment variable and name it in key_env."
        )
