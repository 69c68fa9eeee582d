"""Keys of endpoints: from the environment alone, and never repeated."""

import os
import re


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
