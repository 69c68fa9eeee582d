"""Float64 oracle of the attention contract, one (batch, head, query) row at a time.

Written from the equations alone and slow on purpose: rows are computed over the list of keys they
see, so there is no mask, no infinity and no broadcasting to get wrong. Gradients come from
autograd.
"""

import torch
from torch import Tensor


def attention_oracle(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    num_types: int,
    type_bias: Tensor | None = None,
    type_scale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, Lq, H, Dv), mass (B, Lq, H, C), lse (B, H, Lq); tables are (H, C)."""
    batch, num_queries, heads, head_dim = q.shape
    num_keys, kv_heads = k.shape[1:3]
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    out, mass, lse = [], [], []
    for b in range(batch):
        for i in range(num_queries):
            for h in range(heads):
                seen = [
                    j
                    for j in range(num_keys)
                    if _sees(i + num_keys - num_queries, j, causal, window_size)
                    and (key_types is None or key_types[b, j] >= 0)
                    and not _hidden(type_bias, h, key_types, b, j)
                ]
                if not seen:
                    out.append(q.new_zeros(v.shape[-1]))
                    mass.append(q.new_zeros(num_types))
                    lse.append(q.new_tensor(float("-inf")))
                    continue
                types = torch.zeros(len(seen), dtype=torch.long)
                if key_types is not None:
                    types = key_types[b, seen].long()
                z = scale * (k[b, seen, h * kv_heads // heads] @ q[b, i, h])
                if type_scale is not None:
                    z = z * type_scale[h][types]
                if type_bias is not None:
                    z = z + type_bias[h][types]
                norm = torch.logsumexp(z, 0)
                weights = torch.exp(z - norm)
                out.append(weights @ v[b, seen, h * kv_heads // heads])
                mass.append(torch.stack([weights[types == c].sum() for c in range(num_types)]))
                lse.append(norm)
    shape = (batch, num_queries, heads)
    return (
        torch.stack(out).reshape(*shape, v.shape[-1]) if out else q.new_zeros(*shape, v.shape[-1]),
        torch.stack(mass).reshape(*shape, num_types) if mass else q.new_zeros(*shape, num_types),
        (torch.stack(lse).reshape(shape) if lse else q.new_zeros(shape)).transpose(1, 2),
    )


def _sees(position: int, key: int, causal: bool, window: tuple[int, int]) -> bool:
    left, right = window
    if causal and key > position:
        return False
    return (left < 0 or key >= position - left) and (right < 0 or key <= position + right)


def _hidden(
    type_bias: Tensor | None, head: int, key_types: Tensor | None, batch: int, key: int
) -> bool:
    """A bias of -inf makes P = 0 for its type; a row that sees no other key sees none."""
    key_type = 0 if key_types is None else int(key_types[batch, key])
    return type_bias is not None and type_bias[head, key_type].item() == float("-inf")


def finite_loss(outputs: tuple[Tensor, Tensor, Tensor], seed: int) -> Tensor:
    """A random linear function of out, mass and lse together, so that all cotangents are
    non-zero."""
    generator = torch.Generator().manual_seed(seed)
    total = outputs[0].new_zeros((), dtype=torch.float64)
    for x in outputs:
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        finite = torch.where(torch.isfinite(x), x, torch.zeros_like(x))
        total = total + (finite.double() * weight).sum()
    return total
