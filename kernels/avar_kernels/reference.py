"""The specification of the operation in plain differentiable PyTorch ("eager" backend).

    z_ij   = softmax_scale * (q_i . k_j) * type_scale[h, t_j] + type_bias[h, t_j]
    lse_i  = logsumexp of z_ij over visible keys with t_j >= 0,   P_ij = exp(z_ij - lse_i)
    out_i  = sum_j P_ij v_j,   mass_i[c] = sum_j P_ij [t_j = c]

Keeps the whole matrix P: O(Lq * Lk) memory per head. Half precision inputs are computed in float32
and only ``out`` is rounded back; float64 stays float64. Gradients come from autograd, so this file
shares no formula with the fused backends.
"""

import torch
from torch import Tensor

from .types import AttnInputs, AttnOutput, AttnParams


def visible_keys(position: Tensor, num_keys: int, causal: bool, window: tuple[int, int]) -> Tensor:
    """(rows, Lk) bool: which key each query may see. ``position`` (rows,) is where the queries
    stand among the keys: i + Lk - Lq, aligned bottom-right as in flash-attn >= 2.1."""
    position = position[:, None]
    key = torch.arange(num_keys, device=position.device)[None, :]
    left, right = window
    if causal:
        right = 0 if right < 0 else min(right, 0)
    visible = torch.ones_like(position - key, dtype=torch.bool)
    if left >= 0:
        visible &= key >= position - left
    if right >= 0:
        visible &= key <= position + right
    return visible


def forward(inputs: AttnInputs, params: AttnParams) -> AttnOutput:
    """out, mass and lse of a dense or packed call; arguments already validated."""
    packed = inputs.packed
    if packed is None:
        return _dense(inputs, params)
    outs, masses, lses = [], [], []
    for sequence in packed.sequences():
        rows = sequence.rows
        one = _dense(inputs.sequence(sequence), params, sequence.num_prefix_keys)
        outs.append(one.out[0])
        masses.append(one.mass[0])
        lses.append(one.lse[0])
    q, v = inputs.q, inputs.v
    tail = q.shape[0] - rows.stop  # tokens behind the last sequence belong to none
    outs.append(q.new_zeros(tail, q.shape[1], v.shape[2]))
    masses.append(masses[0].new_zeros(tail, q.shape[1], params.num_types))
    lses.append(lses[0].new_full((q.shape[1], tail), float("-inf")))
    return AttnOutput(torch.cat(outs), torch.cat(masses), torch.cat(lses, dim=1))


def _dense(inputs: AttnInputs, params: AttnParams, num_prefix_keys: int = 0) -> AttnOutput:
    """One batch; every query sees all of the first ``num_prefix_keys`` keys that exist."""
    q, k, v, key_types, type_bias, type_scale, *_ = inputs
    batch, num_queries, heads, _ = q.shape
    num_keys, group = k.shape[1], heads // k.shape[2]
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    if key_types is None:
        key_types = torch.zeros(batch, num_keys, dtype=torch.long, device=q.device)
    exists = key_types >= 0  # (B, Lk)
    channel = key_types.clamp(min=0).long()

    q_heads = q.to(dtype).transpose(1, 2)  # (B, H, Lq, D)
    # Padding may hold anything, NaN included, and 0 * NaN is NaN: it is zeroed before any product.
    k_heads = k.to(dtype).masked_fill(~exists[:, :, None, None], 0.0)
    v_heads = v.to(dtype).masked_fill(~exists[:, :, None, None], 0.0)
    k_heads = k_heads.transpose(1, 2).repeat_interleave(group, dim=1)  # (B, H, Lk, D)
    v_heads = v_heads.transpose(1, 2).repeat_interleave(group, dim=1)

    logits = params.softmax_scale * (q_heads @ k_heads.transpose(-1, -2))  # (B, H, Lq, Lk)
    if type_scale is not None:
        per_key = type_scale.to(dtype)[:, channel].transpose(0, 1)  # (B, H, Lk)
        logits = logits * per_key[:, :, None, :]
    if type_bias is not None:
        per_key_bias = type_bias.to(dtype)[:, channel].transpose(0, 1)
        logits = logits + per_key_bias[:, :, None, :]

    num_own_keys = num_keys - num_prefix_keys
    position = torch.arange(num_queries, device=q.device) + (num_own_keys - num_queries)
    visible = visible_keys(position, num_own_keys, params.causal, params.window)
    visible = torch.nn.functional.pad(visible, (num_prefix_keys, 0), value=True)
    visible = visible & exists[:, None, None, :]  # (B, 1, Lq, Lk)
    if type_bias is not None:  # a bias of -inf hides its type, even from rows that see no other
        visible = visible & ~torch.isneginf(per_key_bias)[:, :, None, :]
    sees = visible.any(dim=-1, keepdim=True)  # (B, 1 or H, Lq, 1)
    # A row that sees nothing gets finite logits, so that no NaN arises; its results are set below.
    logits = torch.where(sees, logits.masked_fill(~visible, float("-inf")), 0.0)
    lse = torch.logsumexp(logits, dim=-1, keepdim=True)
    weights = torch.where(visible, torch.exp(logits - lse), 0.0)

    one_hot = torch.nn.functional.one_hot(channel, params.num_types).to(dtype)  # (B, Lk, C)
    out = (weights @ v_heads).transpose(1, 2).to(q.dtype)
    mass = (weights @ one_hot[:, None]).transpose(1, 2)
    return AttnOutput(out, mass, torch.where(sees, lse, float("-inf")).squeeze(-1))
