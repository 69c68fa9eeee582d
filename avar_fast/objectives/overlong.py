"""DAPO's soft punishment of completions that are close to the longest allowed (arXiv 2503.14476,
eq. 13)."""

import torch
from torch import Tensor


def overlong_penalty(lengths: Tensor, max_tokens: int, buffer: int) -> Tensor:
    """0 up to max_tokens - buffer tokens, from there linearly down to -1 at max_tokens.

    Args:
        lengths: (N,) tokens of the completions.
        max_tokens: the longest that sampling allows.
        buffer: tokens over which the penalty grows.

    Raises:
        ValueError: a buffer that is not between 1 and max_tokens.
    """
    if not 1 <= buffer <= max_tokens:
        raise ValueError(f"buffer must be between 1 and max_tokens = {max_tokens}; got {buffer}.")
    return torch.clamp((max_tokens - buffer - lengths.float()) / buffer, -1.0, 0.0)
