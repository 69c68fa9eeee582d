"""The summed loss with Liger's fused linear cross-entropy, on a GPU only (Triton).

Liger computes the gradients in the forward pass, which saves one of the four matrix products of
``linear_log_probs``.
"""

import torch
from torch import Tensor


def liger_nll(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Tensor:
    """- sum_i log softmax(W h_i)[t_i], scalar float32.

    Args:
        hidden: (N, D) on a GPU, bfloat16 or float32, with requires_grad.
        weight: (V, D), the same dtype.
        tokens: (N,) integers below V.
    """
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    # Liger adds up dW chunk by chunk; in bfloat16, small terms would be lost.
    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)
    return loss(weight, hidden, tokens)


def liger_fits(num_rows: int, weight: Tensor, budget_bytes: int) -> bool:
    """Whether Liger 0.8 needs at most ``budget_bytes`` for the rows.

    It needs a chunk's logits in the weight's dtype (about as many bytes as the hidden states, with
    rows rounded up to a power of two) and, for a half-precision weight, a float32 sum of dW. The
    answer is always no in float16: gradients are computed before the loss is scaled, so small ones
    would vanish.
    """
    if weight.dtype == torch.float16 or num_rows == 0:
        return False
    vocabulary, width = weight.shape
    rows = -(-num_rows // -(-vocabulary // width))
    chunk = min(1 << (rows - 1).bit_length(), num_rows) * vocabulary * weight.dtype.itemsize
    sums = weight.requires_grad and weight.dtype != torch.float32
    return chunk + (4 * weight.numel() if sums else 0) <= budget_bytes
