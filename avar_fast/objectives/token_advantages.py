"""Advantages of single tokens, from rewards that give one number per token.

    A_t = (v_t - mean) / (std + eps)

with mean and (unbiased) std over all tokens of the group that have a value v.
"""

import torch
from torch import Tensor


def token_advantages(
    values: list[Tensor | None], group_size: int, scale_by_std: bool = True, eps: float = 1e-6
) -> list[Tensor | None]:
    """The advantages of tokens within each group of responses to one prompt.

    Args:
        values: for each response, (T,) values of its tokens, or None if it has none; group after
            group.
        group_size: responses per prompt; the number of responses must be a multiple.
        scale_by_std: False leaves the division out, as Dr. GRPO does.
        eps: added to the standard deviation.

    Returns:
        For each response (T,) float32, or None where it has no values. A group whose values are all
        equal gets exactly 0.

    Raises:
        ValueError: the number of responses is not a multiple of the group size.
    """
    if group_size < 1 or len(values) % group_size:
        raise ValueError(
            f"values must be of a multiple of group_size responses; got {len(values)} and"
            f" {group_size}."
        )
    advantages: list[Tensor | None] = []
    for start in range(0, len(values), group_size):
        group = [None if v is None else v.float() for v in values[start : start + group_size]]
        advantages += _of_group(group, scale_by_std, eps)
    return advantages


def _of_group(group: list[Tensor | None], scale_by_std: bool, eps: float) -> list[Tensor | None]:
    known = [v for v in group if v is not None]
    every = torch.cat(known) if known else torch.empty(0)
    if not len(every) or (every == every[0]).all():
        return [None if v is None else torch.zeros_like(v) for v in group]
    divisor = every.std() + eps if scale_by_std else 1.0
    return [None if v is None else (v - every.mean()) / divisor for v in group]
