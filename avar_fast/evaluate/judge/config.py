"""Settings of the judge, for benchmarks whose official rule uses one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...chat.access import read_key


class JudgeError(Exception):
    """The judge gave no usable reply. The message is the reason."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The address of the judge and the settings of requests to it."""

    url: str
    """Address up to and including /v1."""
    model: str
    """Name of the model at the endpoint."""
    key_env: str | None = None
    """Environment variable that holds the key. The key is never written anywhere."""
    seconds: float = 120.0
    """Time limit of one attempt of a request."""
    at_once: int = 8
    """Answers that are judged at the same time on a rank."""
    body: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    """Further fields of the request's JSON."""

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
        """Model, host and request fields, for the result. Verdicts depend on them."""
        host = urlsplit(self.url).netloc
        return {"model": self.model, "host": host, "body": dict(self.body)}

    def read_key(self) -> str | None:
        """Reads the key from the environment; None if no key is needed.

        Raises:
            ValueError: the variable is not set, or its value cannot be a key.
        """
        return read_key("--judge-key-env", self.key_env)
