"""The operation on torch's fused scaled-dot-product attention: memory linear in L, no compile step.

Forward. V gets indicator columns [t_j = c], so the fused kernel returns the mass beside the output;
type_bias and missing keys enter as an additive mask of shape (B, H or 1, 1, Lk) that is broadcast,
never materialized; type_scale multiplies K per query head.

Backward. The fused backward computes dZ = P (dP - rowsum(dout * out)) from the tensors it is given:
* a column of ones in V with cotangent dlse, and 0 where its output 1 would stand in ``out``, adds
  dlse_i to dP without entering rowsum, which is exactly the gradient of lse;
* indicator columns in K against zeros in Q leave the logits alone, and their dQ is
  softmax_scale * sum_j dZ_ij [t_j = c], whose sum over i is the gradient of type_bias.
Because P is rebuilt from lse, giving the row's global lse and out makes the backward of any piece
of the key axis independent of the others. So bottom-right causal attention with Lq < Lk is two
pieces (all earlier keys, then a causal square), and a window is a piece per block of queries.

Half precision is computed in float32 (torch's CPU kernel is no faster in bfloat16, and mass is
promised in float32); float64 stays float64.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .types import AttnGrads, AttnInputs, AttnOutput, AttnParams, PackedLengths, Sequence
from .widening import Piece, Widened, rows_first

WINDOW_BLOCK = 256  # queries per piece under a sliding window: the mask is 256 x (256 + window)


def forward(inputs: AttnInputs, params: AttnParams) -> AttnOutput:
    """out, mass and lse of a dense or packed call; arguments already validated."""
    if inputs.packed is None:
        return _dense_forward(inputs, params)
    q, v = inputs.q, inputs.v
    acc = q.dtype if q.dtype == torch.float64 else torch.float32
    tokens, heads = q.shape[:2]
    out = q.new_zeros(tokens, heads, v.shape[2])
    mass = q.new_zeros(tokens, heads, params.num_types, dtype=acc)
    lse = q.new_full((heads, tokens), float("-inf"), dtype=acc)
    for sequence in _sequences(inputs.packed):
        rows = sequence.rows
        one = _dense_forward(inputs.sequence(sequence), params, sequence.num_prefix_keys)
        out[rows], mass[rows], lse[:, rows] = one.out[0], one.mass[0], one.lse[0]
    return AttnOutput(out, mass, lse)


def backward(
    grads: AttnOutput, inputs: AttnInputs, outputs: AttnOutput, params: AttnParams
) -> AttnGrads:
    """Gradients of the inputs from those of the outputs."""
    if inputs.packed is None:
        return _dense_backward(grads, inputs, outputs, params)
    dq, dk, dv = (torch.zeros_like(x) for x in inputs[:3])
    tables = (inputs.type_bias, inputs.type_scale)
    dbias, dscale = (None if table is None else torch.zeros_like(table) for table in tables)
    for sequence in _sequences(inputs.packed):
        rows, num_shared = sequence.rows, sequence.num_prefix_keys
        parts = _rows_of(grads, rows), inputs.sequence(sequence), _rows_of(outputs, rows)
        one = _dense_backward(*parts, params, num_shared)
        dq[rows] = one.q[0]
        for total, part in ((dk, one.k[0]), (dv, one.v[0])):
            total[sequence.prefix] += part[:num_shared]
            total[sequence.keys] += part[num_shared:]
        for total, part in ((dbias, one.type_bias), (dscale, one.type_scale)):
            if total is not None and part is not None:
                total += part
    return AttnGrads(dq, dk, dv, dbias, dscale)


def _sequences(packed: PackedLengths) -> Iterator[Sequence]:
    """The sequences that have rows, and keys of their own or of a prefix."""
    for one in packed.sequences():
        if one.rows.stop > one.rows.start and (
            one.keys.stop > one.keys.start or one.num_prefix_keys
        ):
            yield one


def _rows_of(packed_output: AttnOutput, rows: slice) -> AttnOutput:
    """One sequence of a packed output as a dense batch of one."""
    out, mass, lse = packed_output
    return AttnOutput(out[None, rows], mass[None, rows], lse[None, :, rows])


def _dense_forward(inputs: AttnInputs, params: AttnParams, num_prefix_keys: int = 0) -> AttnOutput:
    wide = Widened(inputs, params)
    batch, heads, num_queries = wide.q.shape[:3]
    total = wide.q.new_zeros(batch, heads, num_queries, wide.width)
    lse = wide.q.new_full((batch, heads, num_queries), float("-inf"))
    for piece in _pieces(inputs, params, num_prefix_keys):
        rows = piece.rows
        part, part_lse = _fused_forward(wide, piece)
        if piece.again:
            before, lse_before = total[:, :, rows], lse[:, :, rows]
            merged = torch.logaddexp(lse_before, part_lse)
            finite = merged.masked_fill(torch.isneginf(merged), 0.0)
            part = part * torch.exp(part_lse - finite)[..., None]
            part += before * torch.exp(lse_before - finite)[..., None]
            part_lse = merged
        total[:, :, rows] = part
        lse[:, :, rows] = part_lse
    value_dim = inputs.v.shape[-1]
    out = rows_first(total[..., :value_dim], inputs.q.dtype)
    mass = rows_first(total[..., value_dim : value_dim + params.num_types], total.dtype)
    return AttnOutput(out, mass, lse)


def _dense_backward(
    grads: AttnOutput,
    inputs: AttnInputs,
    outputs: AttnOutput,
    params: AttnParams,
    num_prefix_keys: int = 0,
) -> AttnGrads:
    wide = Widened(inputs, params)
    blind = torch.isneginf(outputs.lse)  # (B, H, Lq): rows that see no key get zero gradients
    grad_out = wide.join(*grads).masked_fill(blind[..., None], 0.0)
    out = wide.join(outputs.out, outputs.mass, torch.zeros_like(outputs.lse))
    lse = outputs.lse.masked_fill(blind, 0.0)

    dq, dk, dv = torch.zeros_like(wide.q), torch.zeros_like(wide.k), torch.zeros_like(wide.v)
    for piece in _pieces(inputs, params, num_prefix_keys):
        rows, keys = piece.rows, piece.keys
        parts = _fused_backward(wide, piece, grad_out[:, :, rows], out[:, :, rows], lse[:, :, rows])
        dq[:, :, rows] += parts[0]
        dk[:, :, keys] += parts[1]
        dv[:, :, keys] += parts[2]
    return wide.gradients(dq, dk, dv)


def _pieces(inputs: AttnInputs, params: AttnParams, num_prefix_keys: int) -> Iterator[Piece]:
    """Cuts the (Lq, Lk) plane into fused calls; keys that no query sees are left out.

    All queries see the first ``num_prefix_keys`` keys; those come with a call without window."""
    num_queries, num_keys, device = inputs.q.shape[1], inputs.k.shape[1], inputs.q.device
    past = num_keys - num_queries  # query i stands at key position i + past
    left, right = params.window
    if params.causal:
        right = 0 if right < 0 else min(right, 0)
    if num_queries == 0 or num_keys == 0:
        return
    if num_prefix_keys and right == 0 and past < num_prefix_keys:
        # Some queries stand before all own keys, but see the prefix like all others.
        yield Piece(slice(0, num_queries), slice(0, num_prefix_keys))
        if num_keys > num_prefix_keys:
            first = num_prefix_keys - past
            square = slice(first, num_queries), slice(num_prefix_keys, num_keys)
            yield Piece(*square, causal=True, again=True)
    elif left < 0 and right < 0:
        yield Piece(slice(0, num_queries), slice(0, num_keys))
    elif left < 0 and right == 0:
        if past > 0:
            yield Piece(slice(0, num_queries), slice(0, past))
        square = slice(max(-past, 0), num_queries), slice(max(past, 0), num_keys)
        yield Piece(*square, causal=True, again=past > 0)
    else:
        for start in range(0, num_queries, WINDOW_BLOCK):
            stop = min(start + WINDOW_BLOCK, num_queries)
            first = 0 if left < 0 else max(start + past - left, 0)
            last = num_keys if right < 0 else min(stop + past + right, num_keys)
            if first >= last:
                continue
            position = torch.arange(start, stop, device=device)[:, None] + past
            key = torch.arange(first, last, device=device)
            visible = torch.ones(stop - start, last - first, dtype=torch.bool, device=device)
            if left >= 0:
                visible &= key >= position - left
            if right >= 0:
                visible &= key <= position + right
            yield Piece(slice(start, stop), slice(first, last), visible=visible)


def _fused_forward(wide: Widened, piece: Piece) -> tuple[Tensor, Tensor]:
    """(B, H, rows, width) output and (B, H, rows) lse of one piece; blind rows give 0 and -inf."""
    q, k, v = wide.q[:, :, piece.rows], wide.k[:, :, piece.keys], wide.v[:, :, piece.keys]
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, piece.causal, attn_mask=wide.mask(piece), scale=wide.params.softmax_scale
    )
    sees = wide.sees(piece)
    if sees is not None:
        out = torch.where(sees[..., None], out, 0.0)
        lse = torch.where(sees, lse, float("-inf"))
    return out, lse


def _fused_backward(
    wide: Widened, piece: Piece, grad_out: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the widened q, k and v of one piece, from the rows' global out and lse."""
    q, k, v = wide.q[:, :, piece.rows], wide.k[:, :, piece.keys], wide.v[:, :, piece.keys]
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad_out, q, k, v, out, lse, 0.0, piece.causal,
        attn_mask=wide.mask(piece), scale=wide.params.softmax_scale,
    )  # fmt: skip
