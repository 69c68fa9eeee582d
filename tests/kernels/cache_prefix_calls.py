"""Decoding calls whose sequences share prefixes, and what they must give."""

import torch

from .attention_oracle import attention_oracle

PREFIX_OF = [2, 0, -1, 2, 0, 2, -1]  # unsorted; prefix 1 has no sequence
PREFIX_LENGTHS = [5, 9, 0]
LENGTHS = [4, 1, 6, 3, 7, 0, 0]


def make(dtype, queries=1, heads=14, kv_heads=2, dim=17):
    """Random tensors with NaN wherever no key exists."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    rows, prefixes, capacity = len(PREFIX_OF), len(PREFIX_LENGTHS), 8
    q = normal(rows, queries, heads, dim)
    k, v = normal(rows, capacity, kv_heads, dim), normal(rows, capacity, kv_heads, 9)
    prefix_k, prefix_v = normal(prefixes, 9, kv_heads, dim), normal(prefixes, 9, kv_heads, 9)
    types = torch.randint(-1, 4, (rows, capacity), generator=generator).int()
    prefix_types = torch.randint(0, 4, (prefixes, 9), generator=generator).int()
    for p, length in enumerate(PREFIX_LENGTHS):  # padded on the left, as prompts are
        prefix_types[p, : 9 - length] = -1
    prefix_types[0, 6] = -1
    for x in (k, v):
        x[types < 0] = float("nan")
        for b, length in enumerate(LENGTHS):
            x[b, length:] = float("nan")
    for x in (prefix_k, prefix_v):
        x[prefix_types < 0] = float("nan")
    bias, scale = normal(heads, 4), normal(heads, 4)
    table = torch.float64 if dtype == torch.float64 else torch.float32
    options = dict(num_types=4, type_bias=bias.to(table), type_scale=scale.to(table))
    shared = dict(
        prefix_k=prefix_k, prefix_v=prefix_v, prefix_key_types=prefix_types,
        prefix_index=torch.tensor(PREFIX_OF, dtype=torch.int32),
    )  # fmt: skip
    return (q, k, v, types), shared, options


def expected(tensors, shared, options, causal):
    """Each query with a list of exactly its keys."""
    q, k, v, types = (x.double() if x.is_floating_point() else x for x in tensors)
    parts = []
    for b, (prefix, length) in enumerate(zip(PREFIX_OF, LENGTHS, strict=True)):
        rows = []
        for i in range(q.shape[1]):
            seen = max(length - q.shape[1] + i + 1, 0) if causal else length
            keys, values, kinds = [k[b, :seen]], [v[b, :seen]], [types[b, :seen]]
            if prefix >= 0:
                keys.insert(0, shared["prefix_k"][prefix].double())
                values.insert(0, shared["prefix_v"][prefix].double())
                kinds.insert(0, shared["prefix_key_types"][prefix])
            whole = (torch.cat(x)[None] for x in (keys, values, kinds))
            bias, scale = options["type_bias"].double(), options["type_scale"].double()
            rows.append(attention_oracle(q[b : b + 1, i : i + 1], *whole, 4, bias, scale))
        out, mass, lse = zip(*rows, strict=True)
        parts.append([torch.cat(out, 1), torch.cat(mass, 1), torch.cat(lse, 2)])
    return [torch.cat(x) for x in zip(*parts, strict=True)]


def check(got, want, tolerance):
    for name, a, b in zip(("out", "mass", "lse"), got, want, strict=True):
        assert a.shape == b.shape, name
        assert torch.equal(a.isinf(), b.isinf()), name
        assert not a.isnan().any(), name
        error = torch.where(b.isinf(), 0.0, a.double() - b).abs().max()
        assert error < tolerance, (name, error)
