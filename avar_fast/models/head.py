"""Temporarily replaces the computation of a model's LM head, so that logits are never made.

It replaces the forward of the head module, so all hooks of the module still run: ZeRO-3 gathers the
weight before the forward and the backward. Tied embeddings stay one parameter, and checkpointed
layers are not affected.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from . import family_of


@contextmanager
def replaced_head(model: nn.Module, compute: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within the context, the model's forward returns ``compute(hidden, weight)`` as ``logits``.

    Args:
        model: a model of a supported family.
        compute: takes hidden states (B, L, D) and the head's weight (V, D).

    Raises:
        RuntimeError: the model's forward did not call its head exactly once.
    """
    head: Any = family_of(model).lm_head(model)
    assert head.bias is None, head
    calls = 0

    def forward(hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return compute(hidden, head.weight)

    assert "forward" not in vars(head), "the head is replaced already"
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
    if calls != 1:
        raise RuntimeError(
            f"the forward of {type(model).__name__} called its lm_head {calls} times instead of"
            " once, so the loss did not come from the replaced head. Install transformers in"
            " avar-fast's range."
        )
