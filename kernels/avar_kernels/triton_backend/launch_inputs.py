"""The tensors, shapes and options of one call, in the form in which every kernel takes them."""

from functools import cache

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from ..types import AttnInputs, AttnParams
from .block_lists import ListsLayout, sort_for_size
from .blocks import sort_blocks_kernel
from .tiles import arch_of_capability
from .variants import Variant

MAX_TILE_ROWS = 256
MAX_WINDOW = 2**30  # beyond any sequence; row + window stays inside int32


class LaunchInputs:
    """What the launches of forward and backward share.

    Dense (B, L, H, D) and packed (T, H, D) calls run the same kernels: a packed call is one batch
    entry whose batch stride is 0 and whose sequences are found through cu_seqlens.
    """

    def __init__(self, inputs: AttnInputs, params: AttnParams) -> None:
        q, k, v, key_types, type_bias, type_scale, packed, self.blocks = inputs
        self.q, self.k, self.v = (addressable(x) for x in (q, k, v))
        self.types = None if key_types is None else key_types.to(torch.int32).contiguous()
        self.bias = None if type_bias is None else type_bias.float().contiguous()
        self.scale = None if type_scale is None else type_scale.float().contiguous()
        self.softmax_scale = params.softmax_scale
        self.packed = packed is not None
        dense = (None, None, q.shape[1], k.shape[1])
        self.cu_q, self.cu_k, self.max_rows, self.max_keys = packed or dense
        self.num_sequences = q.shape[0] if self.cu_q is None else self.cu_q.numel() - 1
        self.batch = 1 if self.packed else q.shape[0]
        self.rows = q.shape[-3]  # per batch entry; all tokens when packed
        self.heads, self.kv_heads = q.shape[-2], k.shape[-2]
        left, right = params.window[0], 0 if params.causal else params.window[1]
        self.left, self.right = min(left, MAX_WINDOW), min(right, MAX_WINDOW)
        self.variant = Variant(
            arch=_arch(q.device),
            element_bytes=q.element_size(),
            head_dim=q.shape[-1],
            value_dim=v.shape[-1],
            num_types=params.num_types,
            has_types=key_types is not None,
            has_bias=type_bias is not None,
            has_scale=type_scale is not None,
            has_left=left >= 0,
            has_right=right >= 0,
            packed=self.packed,
            # The switch of float32 torch.matmul: products are exact unless it is set to "tf32".
            precision="tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
        )
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

    def options(self, kind: str) -> dict[str, object]:
        """constexpr arguments and launch options of kernel ``kind``."""
        tile = self.variant.tile(kind)
        return {
            **self.variant.constexprs(kind),
            "num_warps": tile.num_warps,
            "num_stages": tile.num_stages,
        }

    def arguments(self, kind: str) -> dict[str, object]:
        """Arguments that the forward, dq and dkdv kernels have in common."""
        return {
            "q_ptr": self.q,
            "k_ptr": self.k,
            "v_ptr": self.v,
            "types_ptr": self.or_any(self.types),
            "bias_ptr": self.or_any(self.bias),
            "scale_ptr": self.or_any(self.scale),
            "cu_seqlens_q_ptr": self.or_any(self.cu_q),
            "cu_seqlens_k_ptr": self.or_any(self.cu_k),
            "softmax_scale": self.softmax_scale,
            "num_rows": self.max_rows,
            "num_keys": self.max_keys,
            "group": self.heads // self.kv_heads,
            "left": self.left,
            "right": self.right,
            "stride_tb": 0 if self.packed else self.k.shape[1],
            **self.strides("q", self.q),
            **self.strides("k", self.k),
            **self.strides("v", self.v),
            **self.options(kind),
        }

    def strides(self, name: str, x: Tensor) -> dict[str, int]:
        """Batch, row and head strides of a (B, L, H, D) or (T, H, D) tensor."""
        batch = 0 if self.packed else x.stride(0)
        return {
            f"stride_{name}b": batch,
            f"stride_{name}l": x.stride(-3),
            f"stride_{name}h": x.stride(-2),
        }

    def row_strides(self) -> dict[str, int]:
        """Strides of contiguous mass (B, L, H, C) and lse (B, H, L), packed or not."""
        per_token = self.heads * self.variant.num_types
        return {
            "stride_mb": 0 if self.packed else self.rows * per_token,
            "stride_ml": per_token,
            "stride_lb": 0 if self.packed else self.heads * self.rows,
            "stride_lh": self.rows,
        }

    def key_lists(self, kind: str) -> dict[str, object]:
        """The key blocks of every sequence sorted by class, for kernel ``kind``."""
        if self.types is None:
            return {"lists_ptr": self.q, "lists_stride": 0}
        block_n = self.variant.tile(kind).block_n
        layout = ListsLayout(self.num_sequences, self.max_keys, self.variant.num_types)
        if self.blocks is not None:
            lists = layout.section(self.blocks, block_n)
        else:
            lists = sort_for_size(self.types, self.cu_k, layout, block_n)
        return {"lists_ptr": lists, "lists_stride": layout.row_stride(block_n)}


def addressable(x: Tensor) -> Tensor:
    """``x``, copied if its last dimension has gaps or a tile's offsets do not fit 32 bits."""
    fits = x.stride(-3) * MAX_TILE_ROWS < 2**31
    return x if x.stride(-1) == 1 and fits else x.contiguous()


def _arch(device: torch.device) -> str:
    if isinstance(sort_blocks_kernel, InterpretedFunction):
        return "interpreter"
    return _arch_of_gpu(device.index if device.index is not None else torch.cuda.current_device())


@cache
def _arch_of_gpu(index: int) -> str:
    # The MI200 and MI300 families share one table row, as both have 64 KB of local memory.
    if torch.version.hip is not None:
        return "gfx942"
    return arch_of_capability(*torch.cuda.get_device_capability(index))
