"""The ``torch.library`` operators of attention: fake kernels for torch.compile, and autograd.

The eager backend is plain differentiable PyTorch and needs no operator; the fused backends share
one forward and one backward operator.
"""

from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import cpu, reference, sdpa
from .op_arguments import NUM_ARGUMENTS, NUM_TENSORS, NUMBERS, TENSORS, restore
from .registration import register_operator
from .types import AttnOutput
from .value_checks import check_key_values, check_packed_values

_MODULES = {"eager": reference, "cpu": cpu, "sdpa": sdpa}


def implementation(backend: str) -> ModuleType:
    """The module of a backend, with its ``forward`` and, but for eager, its ``backward``."""
    if backend == "triton":
        from . import triton_backend  # imports triton, which the CPU path does without

        return triton_backend
    return _MODULES[backend]


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """out, mass and lse of one call.

    Shapes and dtypes were checked by the public function. Values are checked here, unless
    ``values_checked`` says that a ``KeyPlan`` has done it.
    """
    inputs, params = restore(arguments)
    values_checked, backend = arguments[NUM_ARGUMENTS:]
    if not values_checked:
        check_key_values(inputs.key_types, params.num_types)
        check_packed_values(inputs.packed, inputs.q.shape[0], inputs.k.shape[0])
    out, mass, lse = implementation(backend).forward(inputs, params)
    return out, mass, lse


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, params = restore(arguments)
    q = inputs.q
    accumulate = torch.float64 if q.dtype == torch.float64 else torch.float32
    rows, heads = q.shape[:-2], q.shape[-2]
    out = q.new_empty(*rows, heads, inputs.v.shape[-1])
    mass = q.new_empty(*rows, heads, params.num_types, dtype=accumulate)
    lse = q.new_empty(*rows[:-1], heads, rows[-1], dtype=accumulate)
    return out, mass, lse


def _gradients(
    grad_out: Tensor, grad_mass: Tensor, grad_lse: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, type_bias, type_scale; an empty tensor stands for an absent table."""
    tensors, (out, mass, lse, *numbers) = arguments[:NUM_TENSORS], arguments[NUM_TENSORS:]
    inputs, params = restore((*tensors, *numbers))
    grads, outputs = AttnOutput(grad_out, grad_mass, grad_lse), AttnOutput(out, mass, lse)
    backend = numbers[-1]
    dq, dk, dv, *tables = implementation(backend).backward(grads, inputs, outputs, params)
    dbias, dscale = (lse.new_empty(0) if grad is None else grad for grad in tables)
    return dq, dk, dv, dbias, dscale


def _fake_gradients(
    grad_out: Tensor, grad_mass: Tensor, grad_lse: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, _, type_bias, type_scale, *_ = arguments

    def table_grad(table: Tensor | None) -> Tensor:
        return q.new_empty((0,) if table is None else table.shape, dtype=grad_lse.dtype)

    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv, table_grad(type_bias), table_grad(type_scale)


def _backward(
    saved: tuple[Tensor | None, ...], numbers: tuple[Any, ...], *grads: Tensor
) -> tuple[Tensor | None, ...]:
    dq, dk, dv, dbias, dscale = visual_attn_backward(*grads, *saved, *numbers)
    dbias = None if saved[4] is None else dbias
    dscale = None if saved[5] is None else dscale
    return dq, dk, dv, None, dbias, dscale, *_NO_GRADIENTS


_NO_GRADIENTS = (None,) * (NUM_ARGUMENTS + 2 - 6)  # of the arguments behind type_scale


def _no_double_backward(*unused: Any) -> NoReturn:
    raise NotImplementedError(
        "the fused attention backends have no second derivative; use backend='eager', which has."
    )


visual_attn = register_operator(
    f"visual_attn({TENSORS}, {NUMBERS}, bool values_checked, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
    _backward,
    NUM_TENSORS,
)
visual_attn_backward = register_operator(
    f"visual_attn_backward(Tensor grad_out, Tensor grad_mass, Tensor grad_lse, {TENSORS},"
    f" Tensor out, Tensor mass, Tensor lse, {NUMBERS}, bool values_checked, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _gradients,
    _fake_gradients,
    _no_double_backward,
)
