"""Raises on wrong values without waiting for a GPU."""

import torch
from torch import Tensor


def refuse(wrong: Tensor, message: str) -> None:
    """Raises ValueError if ``wrong``, a bool of no dimension, is true. On a GPU it is a device-side
    assertion, because reading a value there would stall every forward."""
    # ROCm builds may leave device-side assertions out.
    if wrong.is_cuda and torch.version.hip is None:
        torch.ops.aten._assert_async.msg(~wrong, message)
    elif wrong:
        raise ValueError(message)
