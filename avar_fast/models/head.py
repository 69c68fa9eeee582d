"""What a model's LM head computes, for a while: anything but logits.

The function takes the place of the head module's forward and not of a part of the model's, so
whatever hangs on the module still happens around it: ZeRO-3 gathers the weight before it and before
its backward, tied embeddings are the same parameter, checkpointed layers are not concerned.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from . import family_of


@contextmanager
def replaced_head(model: nn.Module, compute: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within it, the model's forward returns ``compute(hidden, weight)`` as its ``logits``.

    Args:
        model: of a supported family.
        compute: takes hidden states (B, L, D) and the head's weight (V, D).

    Raises:
        RuntimeError: the model's forward did not call its head, so ``logits`` are something else.
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
