"""Small kernels written by hand, for the tests of the emulator itself."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .emulator.kernel import Kernel
from .emulator.launch import Launch
from .emulator.program import parse

_REGISTERS = """
    .reg .pred %p<8>;
    .reg .b16 %rs<16>;
    .reg .b32 %r<80>;
    .reg .b64 %rd<24>;
"""


def kernel_text(body: str, num_tensors: int) -> str:
    """PTX with one pointer parameter per tensor; %rd0, %rd1, ... hold them, %r0 the thread."""
    parameters = ", ".join(f".param .u64 .ptr .global .align 1 arg{i}" for i in range(num_tensors))
    loads = "".join(f"ld.param.b64 %rd{i}, [arg{i}];\n" for i in range(num_tensors))
    return f"""
        .version 8.7
        .extern .shared .align 16 .b8 global_smem[];
        .visible .entry written_by_hand({parameters}) {{
            {_REGISTERS} {loads} mov.u32 %r0, %tid.x;
            {body}
            ret;
        }}
    """


def run(
    body: str, *tensors: torch.Tensor, threads: int = 32, blocks: int = 1, shared_bytes: int = 0
) -> None:
    """Runs a body on tensors, which it may write."""
    kernel = Kernel(parse(kernel_text(body, len(tensors))))
    pointers = [x.data_ptr() for x in tensors]
    Launch(kernel, (blocks, 1, 1), threads, shared_bytes, pointers, tensors).run()


# %rd10 is the address of this thread's 4-byte element of the first tensor, and so on.
ADDRESSES = """
    mul.wide.u32 %rd9, %r0, 4;
    add.s64 %rd10, %rd0, %rd9;
"""


def results(
    body: str, columns: Sequence[NDArray], count: int, threads: int = 32, shared_bytes: int = 0
) -> list[NDArray]:
    """Gives every thread its number of each column in %r10, %r11, ... (32 bits); returns what it
    leaves in %r60, %r61, ... as uint32 (threads,), ``count`` arrays."""
    given = [torch.from_numpy(np.ascontiguousarray(c).view(np.int32).copy()) for c in columns]
    out = [torch.full((threads,), -1, dtype=torch.int32) for _ in range(count)]
    text = "mul.wide.u32 %rd20, %r0, 4;\n"
    for number in range(len(given)):
        text += f"""
            add.s64 %rd21, %rd{number}, %rd20;
            ld.global.b32 %r{10 + number}, [%rd21];
        """
    text += body
    for number in range(count):
        text += f"""
            add.s64 %rd21, %rd{len(given) + number}, %rd20;
            st.global.b32 [%rd21], %r{60 + number};
        """
    run(text, *given, *out, threads=threads, shared_bytes=shared_bytes)
    return [x.numpy().view(np.uint32) for x in out]
