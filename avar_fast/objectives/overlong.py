"""DAPO's soft penalty for completions close to the length limit (arXiv 2503.14476, eq. 13)."""

import torch
from torch import Tensor


def overlong_penalty(lengths: Tensor, max_tokens: int, buffer: int) -> Tensor:
    """The penalty: 0 up to max_tokens - buffer tokens, then linear down to -1 at max_tokens.

    Args:
        lengths: (N,) numbers of tokens of the completions.
        max_tokens: the longest completion that sampling allows.
        buffer: number of tokens over which the penalty grows.

    Returns:
        (N,) float32.

    Raises:
        ValueError: the buffer is not between 1 and max_tokens.
    """
    if not 1 <= buffer <= max_tokens:
        raise ValueError(f"buffer must be between 1 and max_tokens = {max_tokens}; got {buffer}.")
    return torch.clamp((max_tokens - buffer - lengths.float()) / buffer, -1.0, 0.0)
