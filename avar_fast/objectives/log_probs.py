"""Log-probabilities of given tokens from logits."""

import torch
from torch import Tensor


def token_log_probs(
    logits: Tensor, tokens: Tensor, temperature: float = 1.0, banned_ids: tuple[int, ...] = ()
) -> Tensor:
    """log softmax(logits / temperature) at the given tokens, in float32.

    Args:
        logits: (..., V).
        tokens: (...) integers below V.
        temperature: of the distribution that sampled the tokens.
        banned_ids: tokens that sampling suppressed; they get no probability here either.

    Returns:
        (...) float32, differentiable.
    """
    logits = logits.float() / temperature
    if banned_ids:
        logits = logits.index_fill(
            -1, torch.tensor(banned_ids, device=logits.device), float("-inf")
        )
    chosen = logits.gather(-1, tokens[..., None]).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)
