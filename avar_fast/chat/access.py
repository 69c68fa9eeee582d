"""Keys of endpoints, and which addresses bypass the proxy. Works without the package openai."""

import os
import re
from urllib.parse import urlsplit

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


class MissingKeyError(ValueError):
    """An environment variable that should hold a key is not set, or holds no valid key."""


def read_key(setting: str, variable: str | None) -> str | None:
    """Reads a key from an environment variable.

    Args:
        setting: name of the setting that names the variable, for error messages.
        variable: name of the variable; None if no key is needed.

    Returns:
        The key; None if ``variable`` is None.

    Raises:
        MissingKeyError: the variable is not set, or its value cannot be a key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingKeyError(
            f"{setting} must name a variable that holds the key; {variable} is not set. Use:"
            f" export {variable}=..."
        )
    # A header cannot hold other characters, and the HTTP library's error would show the key.
    if not re.fullmatch(r"[!-~]+", key):
        raise MissingKeyError(
            f"{setting} must name a variable that holds the key alone; {variable} holds blanks,"
            " line breaks or letters outside ASCII."
        )
    return key


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own. Clients must bypass a proxy that the environment
    names, because no proxy can reach such an address."""
    return urlsplit(url).hostname in LOOPBACK_HOSTS
