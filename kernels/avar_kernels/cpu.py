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

from .types import AttnGrads, AttnInputs, AttnOutput, AttnParams, CachePrefixes

MAX_HEAD_DIM = 1024  # scratch memory per thread grows with it
LIBRARY = Path(__file__).parent / "_cpu.so"
NOT_BUILT = (
    "the C++ library is not built; install a C++ compiler (g++ 12 or newer) and run"
    " `pip install --force-reinstall --no-deps -e .` in the source tree"
)

instruction_set: str | None = None
"""Name of the instruction set to use, one of ``instruction_sets()``; None: the best. For tests."""

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("head", ctypes.c_int64),
    ]


_INTEGERS = (
    *("isa", "dtype", "threads"),
    *("batch", "heads", "kv_heads", "dim", "value_dim", "len_q", "len_k", "num_sequences"),
)
_OFFSETS = ("cu_q", "cu_k", "prefix_index", "order", "key_lengths")
_LIMITS = ("num_types", "causal", "window_left", "window_right")
_TENSORS = (
    *("q", "k", "v", "out", "mass", "lse"),
    *("grad_out", "grad_mass", "grad_lse", "dq", "dk", "dv"),
)


class _Args(ctypes.Structure):
    """``Args`` of csrc/args.h, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _INTEGERS),
        *((name, ctypes.c_void_p) for name in _OFFSETS),
        ("continues", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in _LIMITS),
        ("softmax_scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("key_types", "type_bias", "type_scale")),
        *((name, _Tensor) for name in _TENSORS),
        *((name, ctypes.c_void_p) for name in ("grad_type_bias", "grad_type_scale")),
    ]


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.avar_args_bytes.restype = ctypes.c_int64
    for name in ("avar_isa_name", "avar_thread_runtime"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in ("avar_isa_name", "avar_isa_runs"):
        getattr(library, name).argtypes = [ctypes.c_int64]
    library.avar_isa_runs.restype = ctypes.c_int64
    for name in ("avar_forward", "avar_backward"):
        getattr(library, name).argtypes = [ctypes.POINTER(_Args)]
        getattr(library, name).restype = None
    if library.avar_args_bytes() != ctypes.sizeof(_Args):
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
    names = instruction_sets()
    if instruction_set is not None:
        return names.index(instruction_set)
    return max(i for i, name in enumerate(names) if name)


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
    filled = _FilledArgs(inputs, params)
    filled.outputs(outputs)
    _library().avar_forward(filled.args)
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
    if prefixes is not None:
        shared = inputs._replace(k=prefixes.k, v=prefixes.v, key_types=prefixes.key_types)
        filled = _FilledArgs(shared, params._replace(causal=False))
        filled.group_queries(prefixes.order, prefixes.offsets, q.shape[1])
        filled.outputs(outputs)
        _library().avar_forward(filled.args)
    filled = _FilledArgs(inputs, params)
    filled.args.continues = prefixes is not None
    if cache_seqlens is not None:
        filled.args.key_lengths = filled.pointer(cache_seqlens)
    filled.outputs(outputs)
    _library().avar_forward(filled.args)
    return outputs


def backward(
    grads: AttnOutput, inputs: AttnInputs, outputs: AttnOutput, params: AttnParams
) -> AttnGrads:
    """Gradients of the inputs from those of the outputs."""
    filled = _FilledArgs(inputs, params)
    filled.outputs(outputs)
    filled.tensor("grad_out", grads.out)
    filled.tensor("grad_mass", grads.mass)
    filled.tensor("grad_lse", grads.lse, heads_first=True)
    q, k, v, *_ = inputs
    dq = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    make = torch.empty if inputs.packed is None else torch.zeros
    dk, dv = (make(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    filled.tensor("dq", dq)
    filled.tensor("dk", dk)
    filled.tensor("dv", dv)
    dbias = filled.table_grad("grad_type_bias", inputs.type_bias)
    dscale = filled.table_grad("grad_type_scale", inputs.type_scale)
    _library().avar_backward(filled.args)
    return AttnGrads(dq.to(q.dtype), dk, dv, dbias, dscale)


class _FilledArgs:
    """The ``Args`` of one call, and the tensors they point to."""

    def __init__(self, inputs: AttnInputs, params: AttnParams) -> None:
        q, k, v, key_types, type_bias, type_scale, packed, _ = inputs
        self.kept: list[Tensor] = []
        self.args = args = _Args()
        args.isa, args.dtype, args.threads = _isa(), _DTYPES[q.dtype], torch.get_num_threads()
        args.batch = 1 if packed else q.shape[0]
        args.heads, args.kv_heads = q.shape[-2], k.shape[-2]
        args.dim, args.value_dim = q.shape[-1], v.shape[-1]
        args.len_q, args.len_k = q.shape[-3], k.shape[-3]
        if packed is not None:
            args.num_sequences = packed.cu_seqlens_q.numel() - 1
            args.cu_q = self.pointer(packed.cu_seqlens_q)
            args.cu_k = self.pointer(packed.cu_seqlens_k)
            if packed.prefix_index is not None:
                args.prefix_index = self.pointer(packed.prefix_index)
        args.num_types, args.softmax_scale = params.num_types, params.softmax_scale
        args.causal = params.causal
        args.window_left, args.window_right = params.window
        if key_types is not None:
            args.key_types = self.pointer(key_types.long().clamp(-1, 127).to(torch.int8))
        if type_bias is not None:
            args.type_bias = self.pointer(type_bias.float())
        if type_scale is not None:
            args.type_scale = self.pointer(type_scale.float())
        for name, x in (("q", q), ("k", k), ("v", v)):
            self.tensor(name, x)

    def group_queries(self, order: Tensor, offsets: Tensor, num_queries: int) -> None:
        """Makes one sequence of all queries whose batches share keys: those of key batch p are
        ``order[offsets[p] : offsets[p + 1]]``."""
        self.args.num_sequences = offsets.numel() - 1
        self.args.cu_q = self.pointer(offsets * num_queries)
        self.args.order = self.pointer(order)

    def outputs(self, outputs: AttnOutput) -> None:
        """Enters out, mass and lse."""
        self.tensor("out", outputs.out)
        self.tensor("mass", outputs.mass)
        self.tensor("lse", outputs.lse, heads_first=True)

    def tensor(self, name: str, x: Tensor, heads_first: bool = False) -> None:
        """Enters a tensor (B, L, H, n) or (L, H, n); with ``heads_first`` (B, H, L) or (H, L)."""
        if heads_first:
            x = x.transpose(-1, -2)[..., None]
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            x = x.contiguous()
        self.kept.append(x)
        batch = x.stride(0) if x.dim() == 4 else 0
        setattr(self.args, name, _Tensor(x.data_ptr(), batch, x.stride(-3), x.stride(-2)))

    def table_grad(self, name: str, table: Tensor | None) -> Tensor | None:
        """Enters a new tensor for the gradient of a table; None where there is no table."""
        if table is None:
            return None
        grad = torch.empty(table.shape, dtype=torch.float32, device=table.device)
        setattr(self.args, name, self.pointer(grad))
        return grad

    def pointer(self, x: Tensor) -> int:
        """The address of a tensor without gaps, which lives as long as these arguments."""
        x = x.contiguous()
        self.kept.append(x)
        return x.data_ptr()
