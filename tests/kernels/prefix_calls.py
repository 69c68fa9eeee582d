"""Packed calls whose sequences share prefixes: random ones, and what they must give."""

from typing import NamedTuple

import torch
from avar_kernels import visual_attn_varlen_func
from torch import Tensor

from .attention_oracle import attention_oracle


class PrefixCall(NamedTuple):
    """One call in float64: tensors, offsets and options."""

    leaves: list[Tensor]
    """q (Tq, H, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv), type_bias and type_scale (H, num_types)."""
    types: Tensor
    rows: list[int]
    """Queries of each sequence."""
    keys: list[int]
    """Keys of each sequence."""
    prefixes: list[int]
    num_types: int
    causal: bool

    @property
    def lengths(self) -> dict:
        """The offsets and prefixes, as the public function takes them."""
        cu_q, cu_k = (torch.tensor([0, *n]).cumsum(0).int() for n in (self.rows, self.keys))
        return dict(
            cu_seqlens_q=cu_q, cu_seqlens_k=cu_k,
            max_seqlen_q=max(self.rows), max_seqlen_k=max(self.keys),
            prefix_index=torch.tensor(self.prefixes, dtype=torch.int32),
        )  # fmt: skip


def draw(generator: torch.Generator, longest: int = 40) -> PrefixCall:
    """A random call: prefixes with and without queries, users and keys, in any order."""

    def below(n):
        return int(torch.randint(n, (1,), generator=generator))

    def pick(*values):
        return values[below(len(values))]

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    count = 1 + below(6)
    is_prefix = [below(3) == 0 for _ in range(count)]
    own = [n for n in range(count) if is_prefix[n]]
    prefixes = [
        -1 if is_prefix[n] or not own or below(5) == 0 else pick(*own) for n in range(count)
    ]
    keys = [pick(0, 1, below(longest), below(longest)) for _ in range(count)]
    rows = [pick(0, n, n, n, below(longest)) for n in keys]
    kv_heads, num_types = pick(1, 1, 2), pick(1, 3, 16)
    heads, dim, value_dim = kv_heads * pick(1, 2, 3, 7), pick(1, 7, 16, 24), pick(1, 8, 19)
    tail = below(3)
    q, k = normal(sum(rows) + tail, heads, dim), normal(sum(keys) + tail, kv_heads, dim)
    v = normal(len(k), kv_heads, value_dim)
    types = torch.randint(-1, num_types, (len(k),), generator=generator)
    if pick(True, False):  # long runs, as real batches have
        types = types.sort().values
    bias, scale = normal(heads, num_types), normal(heads, num_types)
    if below(4) == 0:
        bias[:, 0] = float("-inf")
    leaves = [q, k, v, bias, scale]
    return PrefixCall(leaves, types, rows, keys, prefixes, num_types, pick(True, True, False))


def by_rows(call: PrefixCall, *leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """out, mass and lse by the row-by-row oracle, each row with a list of exactly its keys."""
    q, k, v, bias, scale = leaves
    starts_q, starts_k = ([0, *torch.tensor(n).cumsum(0).tolist()] for n in (call.rows, call.keys))
    out = q.new_zeros(*q.shape[:2], v.shape[-1]).unbind()
    mass = q.new_zeros(*q.shape[:2], call.num_types).unbind()
    lse = q.new_full((q.shape[1], len(q)), float("-inf")).unbind(1)
    out, mass, lse = list(out), list(mass), list(lse)
    for n, (num_rows, num_keys) in enumerate(zip(call.rows, call.keys, strict=True)):
        prefix = call.prefixes[n]
        shared = [] if prefix < 0 else list(range(starts_k[prefix], starts_k[prefix + 1]))
        for i in range(num_rows):
            seen = min(i + num_keys - num_rows + 1, num_keys) if call.causal else num_keys
            index = shared + list(range(starts_k[n], starts_k[n] + max(seen, 0)))
            row = starts_q[n] + i
            one = attention_oracle(
                q[None, row : row + 1], k[None, index], v[None, index], call.types[None, index],
                call.num_types, bias, scale,
            )  # fmt: skip
            out[row], mass[row], lse[row] = one[0][0, 0], one[1][0, 0], one[2][0, :, 0]
    return torch.stack(out), torch.stack(mass), torch.stack(lse, dim=1)


def attend(call: PrefixCall, backend, *leaves, types=None, **changes):
    """The public function on a call's tensors, or on others of the same shapes."""
    q, k, v, bias, scale = leaves
    table = torch.float64 if q.dtype == torch.float64 else torch.float32
    return visual_attn_varlen_func(
        q, k, v, key_types=call.types if types is None else types, num_types=call.num_types,
        type_bias=bias.to(table), type_scale=scale.to(table), causal=call.causal, backend=backend,
        **call.lengths | changes,
    )  # fmt: skip


def poisoned(call: PrefixCall) -> list[Tensor]:
    """The leaves with NaN in the keys and values of padding."""
    leaves = [x.clone() for x in call.leaves]
    leaves[1][call.types < 0] = float("nan")
    leaves[2][call.types < 0] = float("nan")
    return leaves
