"""The tensors, shapes and options of one call, in the form in which every kernel takes them."""

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from ..types import AttnInputs, AttnParams
from .block_lists import ListsLayout, sort_for_size
from .blocks import UNLIMITED, sort_blocks_kernel
from .devices import arch_of_gpu
from .launchers import prepared_variant

MAX_TILE_ROWS = 256
ALIGNMENT = 16  # elements; bytes of an address


class LaunchInputs:
    """What the launches of forward and backward share.

    q, k and v have aligned rows (see ``aligned``), so their last dimensions may be longer than
    those of the call. Decoding reads the cache as it is: to copy it for every token would take far
    longer, and its tiles are too short for wgmma.

    Dense (B, L, H, D) and packed (T, H, D) calls run the same kernels: a packed call is one batch
    entry whose batch stride is 0 and whose sequences are found through cu_seqlens.
    """

    def __init__(self, inputs: AttnInputs, params: AttnParams, decoding: bool = False) -> None:
        q, k, v, key_types, type_bias, type_scale, packed, self.blocks = inputs
        prepared = addressable if decoding else aligned
        self.q, self.k, self.v = prepared(q), prepared(k), prepared(v)
        self.head_dim, self.value_dim = q.shape[-1], v.shape[-1]
        self.types = None if key_types is None else _as_dense(key_types, torch.int32)
        self.bias = None if type_bias is None else _as_dense(type_bias, torch.float32)
        self.scale = None if type_scale is None else _as_dense(type_scale, torch.float32)
        self.softmax_scale = params.softmax_scale
        self.packed = packed is not None
        *leading, self.rows, self.heads, _ = q.shape  # rows per batch entry
        num_keys, self.kv_heads, _ = v.shape[-3:]
        if packed is None:
            self.cu_q = self.cu_k = self.prefix_index = None
            self.max_rows, self.max_keys = self.rows, num_keys
            self.batch = self.num_sequences = leading[0]
            self.types_stride = num_keys
        else:
            self.cu_q, self.cu_k, self.max_rows, self.max_keys, prefix_index = packed
            self.prefix_index = None if prefix_index is None else prefix_index.contiguous()
            self.batch, self.num_sequences = 1, packed.cu_seqlens_q.shape[0] - 1
            self.types_stride = 0
        left, right = params.window[0], 0 if params.causal else params.window[1]
        self.left, self.right = min(left, UNLIMITED.value), min(right, UNLIMITED.value)
        element_bytes = q.element_size()
        self.prepared = prepared_variant(
            _arch(q.device),
            element_bytes,
            self.q.shape[-1],
            self.v.shape[-1],
            params.num_types,
            key_types is not None,
            type_bias is not None,
            type_scale is not None,
            left >= 0,
            right >= 0,
            self.packed,
            self.prefix_index is not None,
            _precision() if element_bytes == 4 else "ieee",  # half precision ignores it
        )
        self.variant = self.prepared.variant
        if self.variant.arch == "interpreter" and q.dtype == torch.bfloat16:
            raise NotImplementedError(
                "Triton's interpreter multiplies bfloat16 tiles wrongly (triton-lang/triton#5424); "
                "got bfloat16 inputs. Use float32 or float16, or run on a GPU."
            )

    def new(self, shape: tuple[int, ...], dtype: torch.dtype, fill: float = 0.0) -> Tensor:
        """An output: filled for a packed call, whose kernels may not write all of it; else not."""
        if self.packed:
            return torch.full(shape, fill, dtype=dtype, device=self.q.device)
        return torch.empty(shape, dtype=dtype, device=self.q.device)

    def or_any(self, tensor: Tensor | None) -> Tensor:
        """The tensor, or any other for an argument that the variant does not read."""
        return self.q if tensor is None else tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """q, k, v, types, bias, scale."""
        q = self.q
        return (
            q,
            self.k,
            self.v,
            q if self.types is None else self.types,
            q if self.bias is None else self.bias,
            q if self.scale is None else self.scale,
        )

    def offsets(self) -> tuple[Tensor, Tensor]:
        """cu_seqlens_q, cu_seqlens_k."""
        return (self.q, self.q) if self.cu_q is None else (self.cu_q, self.cu_k)

    def readers(self) -> tuple[Tensor, Tensor]:
        """starts (N + 1,) and readers (2 N,), int32: readers[starts[n] : starts[n + 1]] are the
        sequences whose queries see the keys of sequence n, itself first, then those whose prefix it
        is, in ascending order."""
        if self.prefix_index is None:
            return self.q, self.q
        numbers = torch.arange(self.num_sequences + 1, dtype=torch.int32, device=self.q.device)
        read, readers = torch.cat([numbers[:-1], self.prefix_index]).sort(stable=True)
        starts = torch.searchsorted(read, numbers, out_int32=True)
        return starts, (readers % self.num_sequences).to(torch.int32)

    def numbers(self) -> tuple[float, int, int, int, int, int]:
        """softmax_scale, num_rows, num_keys, group, left, right."""
        group = self.heads // self.kv_heads
        return self.softmax_scale, self.max_rows, self.max_keys, group, self.left, self.right

    def strides(self, *tensors: Tensor) -> tuple[int, ...]:
        """Batch, row and head strides of every (B, L, H, D) or (T, H, D) tensor."""
        found: tuple[int, ...] = ()
        for x in tensors:
            strides = x.stride()
            found += (0, *strides[:2]) if self.packed else strides[:3]
        return found

    def row_strides(self) -> tuple[int, int, int, int]:
        """Batch and row strides of contiguous mass (B, L, H, C), batch and head strides of lse (B,
        H, L), packed or not."""
        per_token = self.heads * self.variant.num_types
        if self.packed:
            return 0, per_token, 0, self.rows
        return self.rows * per_token, per_token, self.heads * self.rows, self.rows

    def key_lists(self, block_n: int) -> tuple[Tensor, int]:
        """The key blocks of every sequence sorted by class, and the length of a row of them."""
        if self.types is None:
            return self.q, 0
        layout = ListsLayout(self.num_sequences, self.max_keys, self.variant.num_types)
        if self.blocks is not None:
            lists = layout.section(self.blocks, block_n)
        else:
            lists = sort_for_size(self.types, self.cu_k, layout, block_n)
        return lists, layout.row_stride(block_n)


def addressable(x: Tensor) -> Tensor:
    """``x``, copied if its last dimension has gaps or a tile's offsets do not fit 32 bits."""
    strides = x.stride()
    fits = strides[-3] * MAX_TILE_ROWS < 2**31
    return x if strides[-1] == 1 and fits else x.contiguous()


def aligned(x: Tensor) -> Tensor:
    """``x`` with rows that start at whole 16 elements: zeros fill up a last dimension of another
    size, and a view with other strides is copied.

    Rows without this are right on paper and wrong on an H100: the ptxas of Triton 3.6 (12.8) takes
    the descriptor of a wgmma from a register that it has overwritten, where four-byte copies crowd
    the uniform registers. Aligned rows are also read four times as wide.
    """
    missing = -x.shape[-1] % ALIGNMENT
    if missing:
        # Contiguous first: padding keeps a channels-last layout, whose last dimension has gaps.
        return torch.nn.functional.pad(x.contiguous(), (0, missing))
    together = x.data_ptr()
    for stride in x.stride()[:-1]:
        together |= stride
    if together % ALIGNMENT:
        return x.clone(memory_format=torch.contiguous_format)
    return addressable(x)


def trimmed(x: Tensor, size: int) -> Tensor:
    """``x`` without the zeros that ``aligned`` gave to its last dimension."""
    return x if x.shape[-1] == size else x[..., :size].contiguous()


def _as_dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.to(dtype).contiguous()
    return x.clone() if x.data_ptr() % ALIGNMENT else x


def _precision() -> str:
    """``input_precision`` of float32 products. The switch is that of float32 torch.matmul: they are
    exact unless it is set to "tf32"."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _arch(device: torch.device) -> str:
    if isinstance(sort_blocks_kernel, InterpretedFunction):
        return "interpreter"
    return arch_of_gpu(torch.cuda.current_device() if device.index is None else device.index)
