"""Small random calls, and what they give."""

import torch
from avar_kernels import visual_attn_func


def draw(generator):
    """Arguments of one call: shapes, types, tables and options, all random."""

    def pick(*values):
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    kv_heads = pick(1, 1, 2)
    heads = kv_heads * pick(1, 2, 3, 7)
    rows, keys = pick(1, 2, 5, 17, 33), pick(0, 1, 3, 18, 40)
    dim, value_dim, num_types = pick(1, 7, 16, 24), pick(1, 8, 19), pick(1, 3, 16)
    batch = pick(1, 2)
    q, k = normal(batch, rows, heads, dim), normal(batch, keys, kv_heads, dim)
    v = normal(batch, keys, kv_heads, value_dim)
    types = torch.randint(-1, num_types, (batch, keys), generator=generator)
    if pick(True, False):  # long runs, as real batches have
        types = types.sort(dim=1).values
    options = dict(causal=pick(True, False), window_size=pick((-1, -1), (-1, -1), (3, 1), (0, -1)))
    tables = {
        name: normal(heads, num_types) if pick(True, False) else None
        for name in ("type_bias", "type_scale")
    }
    if tables["type_bias"] is not None and pick(True, False, False):
        tables["type_bias"][:, 0] = float("-inf")
    return (q, k, v), types, tables, options | dict(num_types=num_types)


def outcome(leaves, types, tables, options, backend, dtype, seed):
    """out, mass, lse and the gradients of a random linear function of all three."""
    table_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [x.to(dtype).requires_grad_() for x in leaves]
    tables = {
        n: None if x is None else x.to(table_dtype).requires_grad_() for n, x in tables.items()
    }
    result = visual_attn_func(*leaves, types, **tables, **options, backend=backend)
    generator = torch.Generator().manual_seed(seed)
    loss = 0.0
    for x in result:
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        loss = loss + (torch.where(torch.isfinite(x), x, 0.0).double() * weight).sum()
    wanted = [*leaves, *(x for x in tables.values() if x is not None)]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [*(x.detach() for x in result), *grads]
