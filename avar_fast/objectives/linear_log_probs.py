"""Computes log-probabilities and entropies from hidden states, without the whole (N, V) logits.

With z_i = (W h_i) / temperature, lse_i = logsumexp_j z_ij and p_ij = exp(z_ij - lse_i):

    log_prob_i = z_i[t_i] - lse_i,   entropy_i = lse_i - sum_j p_ij z_ij

and with cotangents g of log_prob and e of entropy:

    dz_ij = g_i [j = t_i] - p_ij (g_i + e_i entropy_i) - e_i p_ij log p_ij

The vocabulary is processed in slices of as many columns as the byte budget allows for all N rows.
The forward pass merges the sums of the slices (online softmax); the backward pass computes the
logits of each slice again. The vocabulary is sliced, not the rows, so that each row of dW is a
single matrix product over all tokens, and nothing of W's size is accumulated. If all columns fit
the budget at once, p is kept and nothing is computed twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ALIGNMENT = 128  # columns of a slice: whole tiles of the matrix products


class HeadMemoryError(ValueError):
    """The budget is smaller than one column of a batch's logits. This depends on the number of
    rows, so it can first occur at any step."""


def linear_log_probs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    banned_ids: tuple[int, ...] = (),
    *,
    budget_bytes: int,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """log softmax(W h / temperature) at the given tokens, and the entropy of that distribution.

    Matrix products use the dtype of ``weight``; everything else uses float32 (float64 for a float64
    weight).

    Args:
        hidden: (N, D), in the dtype of ``weight``.
        weight: (V, D) of the LM head, which has no bias.
        tokens: (N,) integers below V.
        temperature: temperature of the distribution that sampled the tokens.
        banned_ids: tokens that sampling excluded; their probability is 0 here too.
        budget_bytes: most memory allocated at once, in addition to results and gradients.
        with_entropy: also compute entropies.

    Returns:
        log_probs: (N,) float32, differentiable with respect to hidden and weight.
        entropies: (N,) float32 in nats, differentiable, or None.

    Raises:
        ValueError: shapes or dtypes do not fit.
        HeadMemoryError: the budget is smaller than one column of logits (also a ValueError).
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            "hidden must be (N, D) and weight (V, D); got"
            f" {tuple(hidden.shape)} and {tuple(weight.shape)}."
        )
    if tokens.shape != hidden.shape[:1]:
        raise ValueError(
            f"tokens must be of shape ({len(hidden)},), one per row of hidden; got"
            f" {tuple(tokens.shape)}."
        )
    if hidden.dtype != weight.dtype:
        raise ValueError(
            f"hidden must be of weight's dtype {weight.dtype}; got {hidden.dtype}. Convert it."
        )
    columns = columns_within(budget_bytes, len(hidden), weight, with_entropy)
    log_probs, entropies = _LinearLogProbs.apply(
        hidden, weight, tokens, temperature, banned_ids, columns, with_entropy
    )  # pyright: ignore[reportGeneralTypeIssues]
    return log_probs, entropies if with_entropy else None


def columns_within(budget_bytes: int, num_rows: int, weight: Tensor, with_entropy: bool) -> int:
    """The number of vocabulary columns whose logits fit the budget at once.

    Each logit takes a float32 value, a copy in the weight's dtype if that differs, and another
    float32 value for entropies.
    """
    wide = _wide(weight.dtype).itemsize
    narrow = 0 if weight.dtype.itemsize == wide else weight.dtype.itemsize
    bytes_per_logit = wide * (2 if with_entropy else 1) + narrow
    columns = budget_bytes // (max(num_rows, 1) * bytes_per_logit)
    if columns < 1:
        raise HeadMemoryError(
            f"budget_bytes must hold one column of logits, {num_rows * bytes_per_logit} bytes for"
            f" {num_rows} rows; got {budget_bytes}. Raise model.head_memory_gib."
        )
    if columns >= len(weight):
        return len(weight)
    return columns // ALIGNMENT * ALIGNMENT or columns


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        banned_ids: tuple[int, ...],
        columns: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.settings, ctx.columns = (temperature, banned_ids), columns
        kept: Tensor | None = None
        keeps = columns == len(weight) and any(ctx.needs_input_grad)
        slices = []
        for start in range(0, len(weight), columns):
            logits = _logits(hidden, weight, start, columns, *ctx.settings)
            slices.append(_sums(logits, tokens - start, with_entropy))
            kept = logits if keeps else None
            del logits  # before those of the next slice are computed
        chosen, peaks, totals, weighted = (torch.stack(x) for x in zip(*slices, strict=True))
        peak = peaks.amax(0)
        below = peaks - peak
        shrink = below.exp()
        total = (totals * shrink).sum(0)
        log_total = total.log()
        # With u = z - peak, entropy = log sum_j exp(u) - sum_j exp(u) u / sum_j exp(u).
        entropies = log_total - ((weighted + below * totals) * shrink).sum(0) / total
        ctx.kept = None if kept is None else kept.div_(total[:, None])
        ctx.save_for_backward(hidden, weight, tokens, peak + log_total, entropies)
        ctx.set_materialize_grads(False)
        return (chosen.sum(0) - peak) - log_total, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens, lse, entropies = ctx.saved_tensors
        of_log_prob, of_entropy = grads
        if of_log_prob is None:
            of_log_prob = torch.zeros_like(lse)
        grad_hidden = torch.zeros(hidden.shape, dtype=lse.dtype, device=hidden.device)
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        kept, ctx.kept = ctx.kept, None  # overwritten below; a second backward computes it again
        for start in range(0, len(weight), ctx.columns):
            stop = start + ctx.columns
            if kept is None:
                kept = _logits(hidden, weight, start, ctx.columns, *ctx.settings)
                kept.sub_(lse[:, None]).exp_()
            grad_logits = _grad_logits(kept, tokens - start, of_log_prob, of_entropy, entropies)
            kept = None
            temperature, banned_ids = ctx.settings
            _fill_banned(grad_logits, banned_ids, start, 0.0)
            grad_logits = grad_logits.div_(temperature).to(weight.dtype)
            if ctx.needs_input_grad[0]:
                grad_hidden += grad_logits @ weight[start:stop]
            if grad_weight is not None:
                torch.mm(grad_logits.T, hidden, out=grad_weight[start:stop])
            del grad_logits
        grad_hidden = grad_hidden.to(hidden.dtype) if ctx.needs_input_grad[0] else None
        return grad_hidden, grad_weight, None, None, None, None, None


def _logits(
    hidden: Tensor,
    weight: Tensor,
    start: int,
    columns: int,
    temperature: float,
    banned_ids: tuple[int, ...],
) -> Tensor:
    """The (N, columns) logits of the sampled distribution, newly allocated."""
    logits = (hidden @ weight[start : start + columns].T).to(_wide(weight.dtype))
    _fill_banned(logits.div_(temperature), banned_ids, start, float("-inf"))
    return logits


def _fill_banned(values: Tensor, banned_ids: tuple[int, ...], start: int, value: float) -> None:
    for token in banned_ids:
        if start <= token < start + values.shape[1]:
            values[:, token - start] = value


def _sums(logits: Tensor, local: Tensor, with_entropy: bool) -> tuple[Tensor, ...]:
    """Per row of a slice: the token's logit (0 if it is in another slice), the largest logit, and
    the sums of exp(u) and exp(u) u with u = logit - largest. ``logits`` is overwritten with
    exp(u)."""
    chosen = torch.where(_inside(logits, local), _at(logits, local), 0.0)
    # Finite, so that a slice with only banned tokens gives no NaN.
    peak = logits.amax(1).clamp(min=torch.finfo(logits.dtype).min)
    exps = logits.sub_(peak[:, None]).exp_()
    weighted = -torch.special.entr(exps).sum(1) if with_entropy else torch.zeros_like(peak)
    return chosen, peak, exps.sum(1), weighted


def _grad_logits(
    probs: Tensor,
    local: Tensor,
    of_log_prob: Tensor,
    of_entropy: Tensor | None,
    entropies: Tensor,
) -> Tensor:
    """Cotangent of a slice's scaled logits, in the memory of ``probs``."""
    if of_entropy is None:
        grad = probs.mul_(-of_log_prob[:, None])
    else:
        surprise = torch.special.entr(probs).mul_(of_entropy[:, None])
        grad = probs.mul_(-(of_log_prob + of_entropy * entropies)[:, None]).add_(surprise)
    own = torch.where(_inside(grad, local), of_log_prob, 0.0)
    column = local.clamp(0, grad.shape[1] - 1)[:, None]
    return grad.scatter_add_(1, column, own[:, None])


def _inside(values: Tensor, local: Tensor) -> Tensor:
    return (local >= 0) & (local < values.shape[1])


def _at(values: Tensor, local: Tensor) -> Tensor:
    return values.gather(1, local.clamp(0, values.shape[1] - 1)[:, None])[:, 0]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
