"""Where a judge is: a language model for benchmarks whose official rule asks one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...chat.access import read_key


class JudgeError(Exception):
    """The judge gave no reply that can be used; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Where the judge is and how it is asked."""

    url: str
    """As far as /v1."""
    model: str
    key_env: str | None = None
    """Environment variable that holds the key; it is read from there and written nowhere."""
    seconds: float = 120.0
    """For one attempt of a request."""
    at_once: int = 8
    """Answers under way at the same time on a rank."""
    body: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    """Further fields of a request's JSON."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"--judge-url must be an address as https://host/v1; got {self.url!r}."
            )
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "--judge-url must hold no user, password or query. Put the key into an environment"
                " variable and name it with --judge-key-env."
            )
        if not self.model:
            raise ValueError("--judge-model must name the endpoint's model; got none.")
        if not self.seconds > 0 or self.at_once < 1:
            raise ValueError(
                "--judge-seconds must be positive and --judge-requests at least 1; got"
                f" {self.seconds:g} and {self.at_once}."
            )

    @property
    def name(self) -> dict[str, Any]:
        """What verdicts depend on, for the result."""
        host = urlsplit(self.url).netloc
        return {"model": self.model, "host": host, "body": dict(self.body)}

    def read_key(self) -> str | None:
        """
        Raises:
            ValueError: the variable is not set, or holds what can be no key.
        """
        return read_key("--judge-key-env", self.key_env)
