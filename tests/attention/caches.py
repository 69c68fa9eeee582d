"""Passes caches under the name that the installed transformers has for them."""

from transformers import Cache

from avar_fast.attention import cache_argument


def given(model, cache):
    """The argument that passes a cache to a model."""
    return {cache_argument(model): cache}


def cache_in(output):
    """The cache in a model's output, a dictionary or a tuple."""
    values = output.values() if isinstance(output, dict) else output
    return next(value for value in values if isinstance(value, Cache))
