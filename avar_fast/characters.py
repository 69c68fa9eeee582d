"""Makes text of models and of data sets safe to show."""

import unicodedata

# They turn the direction of all text behind them, that of the program too. Characters that mark the
# direction of their own place stay.
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str, kept: str = "\n\t") -> str:
    """The text with U+FFFD in place of control characters, halves of characters, and characters
    that turn the direction of what follows.

    Joiners and the spaces of all scripts stay, which ``str.isprintable`` counts as not printable.

    Args:
        text: any text.
        kept: control characters that stay.
    """
    return "".join(c if c in kept or _is_harmless(c) else "\ufffd" for c in text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in TURNING
