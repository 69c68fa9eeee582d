"""The fused C++ kernel of ``csrc/`` on CPU tensors: out, mass and lse in one pass, and backward.

The library is plain C behind ctypes: it knows neither torch nor Python, so one build serves every
version of both. It chooses the instruction set at run time, sums in float32, and runs on torch's
own threads; results do not depend on their number. docs/DESIGN.md says how it works.
"""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from .cpu_arguments import NUM_BYTES, CpuArguments
from .types import AttnGrads, AttnInputs, AttnOutput, AttnParams, CachePrefixes

MAX_HEAD_DIM = 1024  # scratch memory per thread grows with it
LIBRARY = Path(__file__).parent / "_cpu.so"
NOT_BUILT = (
    "the C++ library is not built; install a C++ compiler (g++ 12 or newer) and run"
    " `pip install --force-reinstall --no-deps -e .` in the source tree"
)

instruction_set: str | None = None
"""Name of the instruction set to use, one of ``instruction_sets()``; None: the best. For tests."""


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.avar_args_bytes.restype = ctypes.c_int64
    for name in ("avar_isa_name", "avar_thread_runtime"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in ("avar_isa_name", "avar_isa_runs"):
        getattr(library, name).argtypes = [ctypes.c_int64]
    library.avar_isa_runs.restype = ctypes.c_int64
    for name in ("avar_forward", "avar_backward"):
        getattr(library, name).argtypes = [ctypes.c_char_p]
        getattr(library, name).restype = None
    if library.avar_args_bytes() != NUM_BYTES:
        raise OSError("it was built from other sources; reinstall avar-fast")
    return library


def _try_load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or why there is none."""
    if not LIBRARY.is_file():
        return None, NOT_BUILT
    try:
        return _load(), ""
    except (OSError, AttributeError) as error:
        return None, f"{LIBRARY.name} does not load: {error}"


# At import: torch.compile traces the choice of a backend and may not load a library there.
_LIBRARY, WHY_NOT = _try_load()
"""WHY_NOT says why the kernel does not run here; empty where it does."""


def _library() -> ctypes.CDLL:
    assert _LIBRARY is not None, WHY_NOT
    return _LIBRARY


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """The sets that the library knows, least first; an empty name where one does not run here."""
    library, names, index = _library(), [], 0
    while (name := library.avar_isa_name(index)) is not None:
        names.append(name.decode() if library.avar_isa_runs(index) else "")
        index += 1
    return tuple(names)


def thread_runtime() -> str:
    """ "openmp" where the kernel runs on the threads of torch's OpenMP, else "std::thread"."""
    return _library().avar_thread_runtime().decode()


def _isa() -> int:
    return instruction_sets().index(instruction_set or _best_instruction_set())


@functools.cache
def _best_instruction_set() -> str:
    return next(name for name in reversed(instruction_sets()) if name)


def forward(inputs: AttnInputs, params: AttnParams) -> AttnOutput:
    """out, mass and lse of a dense or packed call; arguments already validated."""
    q, v = inputs.q, inputs.v
    rows, heads = q.shape[:-2], q.shape[-2]
    # The kernel writes every row of a dense batch; packed tokens may lie behind the last sequence.
    out = q.new_empty(*rows, heads, v.shape[-1])
    mass = q.new_empty(*rows, heads, params.num_types, dtype=torch.float32)
    lse = q.new_empty(*rows[:-1], heads, rows[-1], dtype=torch.float32)
    if inputs.packed is not None:
        out.zero_()
        mass.zero_()
        lse.fill_(float("-inf"))
    outputs = AttnOutput(out, mass, lse)
    arguments = CpuArguments(inputs, params, _isa())
    arguments.outputs(outputs)
    _library().avar_forward(arguments.packed())
    return outputs


def with_kvcache(
    inputs: AttnInputs,
    params: AttnParams,
    cache_seqlens: Tensor | None,
    prefixes: CachePrefixes | None,
) -> AttnOutput:
    """Decoding, (B, n, H, D) queries on a (B, capacity, Hkv, D) cache: first on the prefixes, whose
    sequences share tiles, then on the sequences' own keys, from the results of the prefixes on."""
    q, v = inputs.q, inputs.v
    outputs = AttnOutput(
        q.new_zeros(*q.shape[:3], v.shape[-1]),
        q.new_zeros(*q.shape[:3], params.num_types, dtype=torch.float32),
        q.new_full((q.shape[0], q.shape[2], q.shape[1]), float("-inf"), dtype=torch.float32),
    )
    first = inputs
    if prefixes is not None:
        first = inputs._replace(k=prefixes.k, v=prefixes.v, key_types=prefixes.key_types)
    arguments = CpuArguments(first, params, _isa())
    arguments.outputs(outputs)
    if prefixes is not None:
        arguments.group_queries(prefixes.order, prefixes.offsets)
        _library().avar_forward(arguments.packed())
        arguments.go_on(inputs, params)
    arguments.pointer("key_lengths", cache_seqlens)
    _library().avar_forward(arguments.packed())
    return outputs


def backward(
    grads: AttnOutput, inputs: AttnInputs, outputs: AttnOutput, params: AttnParams
) -> AttnGrads:
    """Gradients of the inputs from those of the outputs."""
    arguments = CpuArguments(inputs, params, _isa())
    arguments.outputs(outputs)
    arguments.tensor("grad_out", grads.out)
    arguments.tensor("grad_mass", grads.mass)
    arguments.tensor("grad_lse", grads.lse, heads_first=True)
    q, k, v, *_ = inputs
    dq = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    make = torch.empty if inputs.packed is None else torch.zeros
    dk, dv = (make(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    arguments.tensor("dq", dq)
    arguments.tensor("dk", dk)
    arguments.tensor("dv", dv)
    dbias = arguments.table_grad("grad_type_bias", inputs.type_bias)
    dscale = arguments.table_grad("grad_type_scale", inputs.type_scale)
    _library().avar_backward(arguments.packed())
    return AttnGrads(dq.to(q.dtype), dk, dv, dbias, dscale)
