"""The operation and its gradients written out from the equations, one sequence at a time.

    z_ij = softmax_scale (q_i . k_j) scale[h, t_j] + bias[h, t_j],  P = softmax over visible
    existing keys
    dP_ij = dout_i . v_j + dmass_i[t_j],  delta_i = dout_i . out_i + dmass_i . mass_i
    dZ_ij = P_ij (dP_ij - delta_i + dlse_i)

In float64 it is the oracle. In float32 with a shorter ``storage`` it is the plain reference of that
dtype: P, out and dZ are rounded where any fused kernel must round them, everything else is float32.
Its distance from the oracle is the error that the dtype allows.

Beside every result stands its size, ``NAME_size``: the same sums with the absolute values of all
terms. Rounding errors are proportional to it, not to the result, which is 0 where terms cancel.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def attention_and_gradients(
    x: dict[str, Tensor | None], options: dict, compute: torch.dtype, storage: torch.dtype
) -> dict[str, Tensor]:
    """out, mass, lse, dq, dk, dv, dtype_bias, dtype_scale in the kernels' layouts."""
    packed = options["packed"]

    def rounded(t: Tensor) -> Tensor:
        return t if compute == torch.float64 else t.to(storage).to(compute)

    x = {name: t if t is None or name == "key_types" else t.to(compute) for name, t in x.items()}
    dense = packed is None
    if dense:
        spans = [((slice(b, b + 1), slice(None)),) * 2 for b in range(x["q"].shape[0])]
    else:
        spans = [((rows,), (keys,)) for rows, keys in _rows_and_keys(packed)]
    result = _empty_results(x, options["num_types"], dense)
    for n, (q_at, k_at) in enumerate(spans):
        part = {name: x[name][q_at] for name in ("q", "dout", "dmass")}
        part |= {name: x[name][k_at] for name in ("k", "v")}
        lse_at = (q_at[0], slice(None), slice(None)) if dense else (slice(None), *q_at)
        part["dlse"] = x["dlse"][lse_at]
        keys = part["k"].shape[1 if dense else 0]
        types = (
            torch.zeros(keys, dtype=torch.long)
            if x["key_types"] is None
            else x["key_types"][k_at].long().reshape(-1)
        )
        flat = {name: t[0] if dense else t for name, t in part.items()}
        prefix = -1 if dense or packed[4] is None else packed[4][n]
        num_shared = 0 if prefix < 0 else packed[1].diff()[prefix].item()
        tables = x["type_bias"], x["type_scale"]
        one = _one_sequence(flat, types, *tables, num_shared, options, rounded)
        for suffix in ("", "_size"):
            for name in ("out", "mass", "dq"):
                result[name + suffix][q_at] = one[name + suffix]
            for name in ("dk", "dv"):
                result[name + suffix][k_at] += one[name + suffix]
            result["lse" + suffix][lse_at] = one["lse" + suffix]
            for name in ("dtype_bias", "dtype_scale"):
                result[name + suffix] += one[name + suffix]
        result["largest_logit"] = torch.maximum(result["largest_logit"], one["largest_logit"])
    return result


def _rows_and_keys(packed: tuple) -> list[tuple[Tensor, Tensor]]:
    """The rows of q and of k that each sequence has; keys of its prefix first."""
    cu_q, cu_k, _, _, prefixes = packed
    rows, keys = (
        [torch.arange(*ends) for ends in pairwise(offsets.tolist())] for offsets in (cu_q, cu_k)
    )
    if prefixes is not None:
        own = keys
        keys = [
            own[n] if prefix < 0 else torch.cat([own[prefix], own[n]])
            for n, prefix in enumerate(prefixes.tolist())
        ]
    return list(zip(rows, keys, strict=True))


def _empty_results(x: dict[str, Tensor], num_types: int, dense: bool) -> dict[str, Tensor]:
    q, v = x["q"], x["v"]
    *rows, heads, _ = q.shape
    lse_shape = (rows[0], heads, rows[1]) if dense else (heads, rows[0])
    results = {
        "out": q.new_zeros(*rows, heads, v.shape[-1]),
        "mass": q.new_zeros(*rows, heads, num_types),
        "lse": q.new_full(lse_shape, float("-inf")),
        "dq": torch.zeros_like(q),
        "dk": torch.zeros_like(x["k"]),
        "dv": torch.zeros_like(v),
        "dtype_bias": q.new_zeros(heads, num_types),
        "dtype_scale": q.new_zeros(heads, num_types),
    }
    sizes = {f"{name}_size": torch.zeros_like(result) for name, result in results.items()}
    return {**results, **sizes, "largest_logit": q.new_zeros(())}


def _one_sequence(
    x: dict[str, Tensor],
    types: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    num_shared: int,
    options: dict,
    rounded: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    q, dout, dmass, dlse = x["q"], x["dout"], x["dmass"], x["dlse"]
    heads, group = q.shape[1], q.shape[1] // x["k"].shape[1]
    exists = types >= 0
    k, v = (
        torch.where(exists[:, None, None], t, 0.0).repeat_interleave(group, 1)
        for t in (x["k"], x["v"])
    )
    index = types.clamp(min=0)
    is_type = (index[:, None] == torch.arange(options["num_types"])) & exists[:, None]
    is_type = is_type.to(q.dtype)
    factor = torch.ones(heads, len(types), dtype=q.dtype) if scale is None else scale[:, index]
    summand = torch.zeros(heads, len(types), dtype=q.dtype) if bias is None else bias[:, index]

    raw = options["softmax_scale"] * torch.einsum("ihd,jhd->hij", q, k)
    visible = (
        _visible(q.shape[0], len(types), num_shared, options)
        & exists
        & ~summand.isneginf()[:, None]
    )
    summand = torch.nan_to_num(summand, neginf=0.0)  # hidden keys are out by ``visible``
    logits = torch.where(visible, raw * factor[:, None] + summand[:, None], float("-inf"))
    lse = (
        torch.logsumexp(logits, -1)
        if len(types)
        else torch.full(logits.shape[:2], float("-inf"), dtype=q.dtype)
    )
    finite_lse = torch.where(lse.isinf(), 0.0, lse)
    weights = torch.where(visible, torch.exp(logits - finite_lse[..., None]), 0.0)
    out = rounded(torch.einsum("hij,jhd->ihd", rounded(weights), v))
    mass = torch.einsum("hij,jc->ihc", rounded(weights), is_type)

    dweights = torch.einsum("ihd,jhd->hij", dout, v) + torch.einsum("ihc,jc->hij", dmass, is_type)
    delta = (dout * out).sum(-1) + (dmass * mass).sum(-1)
    dlogits = weights * (
        dweights - delta.T[..., None] + torch.where(lse.isinf(), 0.0, dlse)[..., None]
    )
    passed_on = rounded(dlogits * factor[:, None])
    results = {
        "out": out,
        "mass": mass,
        "lse": lse,
        "dtype_bias": torch.einsum("hij,jc->hc", dlogits, is_type),
        "dtype_scale": torch.einsum("hij,jc->hc", dlogits * raw, is_type),
    } | _last_products(passed_on, rounded(weights), q, k, dout, group, options["softmax_scale"])

    raw_size = options["softmax_scale"] * torch.einsum("ihd,jhd->hij", q.abs(), k.abs())
    logit_size = torch.where(
        visible, raw_size * factor[:, None].abs() + summand[:, None].abs(), 0.0
    )
    delta_size = (dout * out).abs().sum(-1) + (dmass * mass).abs().sum(-1)
    dweights_size = torch.einsum("ihd,jhd->hij", dout.abs(), v.abs()) + torch.einsum(
        "ihc,jc->hij", dmass.abs(), is_type
    )
    dlogits_size = weights * (dweights_size + delta_size.T[..., None] + dlse.abs()[..., None])
    sizes = {
        "out": torch.einsum("hij,jhd->ihd", weights, v.abs()),
        "mass": mass,
        "lse": logit_size.amax(-1) + 1.0 if len(types) else torch.zeros_like(lse),
        "dtype_bias": torch.einsum("hij,jc->hc", dlogits_size, is_type),
        "dtype_scale": torch.einsum("hij,jc->hc", dlogits_size * raw_size, is_type),
    } | _last_products(
        dlogits_size * factor[:, None].abs(),
        weights,
        q.abs(),
        k.abs(),
        dout.abs(),
        group,
        options["softmax_scale"],
    )
    results |= {f"{name}_size": size for name, size in sizes.items()}
    results["largest_logit"] = logit_size.amax() if logit_size.numel() else q.new_zeros(())
    return results


def _last_products(
    dlogits: Tensor,
    weights: Tensor,
    q: Tensor,
    k: Tensor,
    dout: Tensor,
    group: int,
    softmax_scale: float,
) -> dict[str, Tensor]:
    dk = softmax_scale * torch.einsum("hij,ihd->jhd", dlogits, q)
    dv = torch.einsum("hij,ihd->jhd", weights, dout)
    return {
        "dq": softmax_scale * torch.einsum("hij,jhd->ihd", dlogits, k),
        "dk": dk.unflatten(1, (-1, group)).sum(2),
        "dv": dv.unflatten(1, (-1, group)).sum(2),
    }


def _visible(num_rows: int, num_keys: int, num_shared: int, options: dict) -> Tensor:
    """Every row sees the first ``num_shared`` keys, which are those of the prefix."""
    left, right = options["window"]
    distance = torch.arange(num_keys) - torch.arange(num_rows)[:, None] - (num_keys - num_rows)
    visible = torch.ones(num_rows, num_keys, dtype=torch.bool)
    if left >= 0:
        visible &= distance >= -left
    if right >= 0:
        visible &= distance <= right
    if options["causal"]:
        visible &= distance <= 0
    visible[:, :num_shared] = True
    return visible
