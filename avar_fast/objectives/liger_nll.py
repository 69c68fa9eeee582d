"""Liger's fused linear cross-entropy: the summed loss, and its gradients already in the forward
pass, which saves one of the four matrix products of ``linear_log_probs``. Triton: on a GPU only."""

import torch
from torch import Tensor


def liger_nll(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Tensor:
    """- sum_i log softmax(W h_i)[t_i], scalar float32.

    Args:
        hidden: (N, D) on a GPU, bfloat16 or float32; its gradient is wanted.
        weight: (V, D), the same dtype.
        tokens: (N,) integers below V.
    """
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    # Liger adds dW up chunk by chunk; in bfloat16 small terms would be lost.
    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)
    return loss(weight, hidden, tokens)


def liger_fits(num_rows: int, weight: Tensor, budget_bytes: int) -> bool:
    """Whether Liger 0.8 can take the rows within a budget: a chunk's logits in the weight's dtype
    (its rule: about as many bytes as the hidden states have, rows rounded up to a power of two) and
    the float32 sum of a half-precision dW.

    Not in float16: its gradients are made before the loss is scaled, so small ones would vanish.
    """
    if weight.dtype == torch.float16 or num_rows == 0:
        return False
    vocabulary, width = weight.shape
    rows = -(-num_rows // -(-vocabulary // width))
    chunk = min(1 << (rows - 1).bit_length(), num_rows) * vocabulary * weight.dtype.itemsize
    sums = weight.requires_grad and weight.dtype != torch.float32
    return chunk + (4 * weight.numel() if sums else 0) <= budget_bytes
