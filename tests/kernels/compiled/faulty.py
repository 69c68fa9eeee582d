"""What the tests of the emulator's checks share: sound and faulty kernels of 64 threads."""

import pytest
import torch

from .emulator.errors import KernelFaultError
from .handwritten import ADDRESSES, run


def faults(body: str, match: str, **options) -> None:
    """A body must be reported with a message and the PTX line."""
    with pytest.raises(KernelFaultError, match=match):
        run(ADDRESSES + body, torch.zeros(64, dtype=torch.int32), threads=64, **options)


def sound(body: str, **options) -> torch.Tensor:
    """Runs a body on 64 threads without a report; returns the tensor."""
    numbers = torch.arange(64, dtype=torch.int32)
    run(ADDRESSES + body, numbers, threads=64, **options)
    return numbers


# Each thread stores at %r1 and looks at the place of a thread of the other warp, %r2.
SHARED = "shl.b32 %r1, %r0, 2; xor.b32 %r2, %r1, 128;"
STORE, LOAD, BARRIER = "st.shared.b32 [%r1], %r0;", "ld.shared.b32 %r3, [%r2];", "bar.sync 0;"
RESULT = "st.global.b32 [%rd10], %r3;"


def shared(*parts: str) -> str:
    return SHARED + "".join(parts)
