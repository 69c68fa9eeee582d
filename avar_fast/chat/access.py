"""How an endpoint is reached: its key, and whether a proxy stands between. Needs no openai."""

import os
import re
from urllib.parse import urlsplit

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


class MissingKeyError(ValueError):
    """The environment lacks a key, or holds what can be none."""


def read_key(setting: str, variable: str | None) -> str | None:
    """The key that an environment variable holds; None where none is needed.

    Args:
        setting: that names the variable, for messages.
        variable: its name, or None.

    Raises:
        MissingKeyError: it is not there, or cannot be a key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingKeyError(
            f"{setting} must name a variable that holds the key; {variable} is not set. Use:"
            f" export {variable}=..."
        )
    if not re.fullmatch(r"[!-~]+", key):  # a header cannot hold it, and its error would repeat it
        raise MissingKeyError(
            f"{setting} must name a variable that holds the key alone; {variable} holds blanks,"
            " line breaks or letters outside ASCII."
        )
    return key


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own. Clients must ignore a proxy named in the
    environment for it: no proxy can reach such an address."""
    return urlsplit(url).hostname in LOOPBACK_HOSTS
