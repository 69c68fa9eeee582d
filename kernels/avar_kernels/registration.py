"""Registers operators with ``torch.library``, with less time per call than ``custom_op``.

``custom_op`` copies all arguments several times per call, and converts the whole schema once per
argument where a gradient is needed. For the twenty arguments of attention that takes longer than a
launch. Everything else is the same: torch.compile, fake tensors, autograd.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The name under which the package was imported: several copies can live in one process.
_NAMESPACE = str(__package__).replace(".", "_")
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")
_KEYS_BELOW_AUTOGRAD = torch._C._after_autograd_keyset


def register_operator(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., tuple[Tensor | None, ...]],
    num_saved: int = 0,
) -> Callable[..., Any]:
    """Registers one operator and returns it.

    Args:
        schema: "name(arguments) -> returns"; arguments are positional and have no defaults, and no
            result is an alias of an argument.
        kernel: computes the results on any device.
        fake: gives tensors of the results' shapes, dtypes and devices, without data.
        backward: ``backward(saved tensors, remaining arguments, *gradients)`` gives a gradient or
            None for each argument.
        num_saved: the first arguments, all of which are tensors or None, that are kept for
            ``backward``, with the results behind them. 0 if ``backward`` only raises.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    operator = getattr(getattr(torch.ops, _NAMESPACE), name).default
    torch.library.register_fake(operator, fake, lib=_LIBRARY)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keys: Any, *arguments: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                results = operator.redispatch(keys & _KEYS_BELOW_AUTOGRAD, *arguments)
            if num_saved:
                ctx.save_for_backward(*arguments[:num_saved], *results)
                ctx.remaining = arguments[num_saved:]
            return results

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            # Saved tensors are read once: a checkpoint hands each of them out only once.
            remaining = ctx.remaining if num_saved else ()
            return (None, *backward(ctx.saved_tensors, remaining, *grads))

    Differentiable.__name__ = f"{name}_autograd"

    def dispatch(keys: Any, *arguments: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return Differentiable.apply(keys, *arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keys & _KEYS_BELOW_AUTOGRAD, *arguments)

    _LIBRARY.impl(name, dispatch, "Autograd", with_keyset=True)
    return operator
