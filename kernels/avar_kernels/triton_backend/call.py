"""One call's tensors, shapes and options in the form in which every kernel takes them."""

from functools import cache

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from ..types import AttnParams, PackedLengths
from . import plan
from .blocks import plan_kernel
from .tiles import arch_of_capability
from .variants import Variant

MAX_TILE_ROWS = 256
MAX_WINDOW = 2**30  # beyond any sequence; row + window stays inside int32


class Call:
    """What forward and backward launches share.

    Dense (B, L, H, D) and packed (T, H, D) calls run the same kernels: a packed call is one batch
    whose batch stride is 0 and whose sequences are found through cu_seqlens.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_types: Tensor | None,
        type_bias: Tensor | None,
        type_scale: Tensor | None,
        params: AttnParams,
        packed: PackedLengths | None,
        blocks: Tensor | None = None,
    ) -> None:
        self.blocks = blocks
        self.q, self.k, self.v = (addressable(x) for x in (q, k, v))
        self.types = None if key_types is None else key_types.to(torch.int32).contiguous()
        self.bias = None if type_bias is None else type_bias.float().contiguous()
        self.scale = None if type_scale is None else type_scale.float().contiguous()
        self.softmax_scale = params.softmax_scale
        self.packed = packed is not None
        self.cu_q, self.cu_k, self.max_rows, self.max_keys = packed or (
            None,
            None,
            q.shape[1],
            k.shape[1],
        )
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
            # The switch that rules float32 torch.matmul rules float32 products here: exact unless
            # opted out.
            precision="tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
        )
        if self.variant.arch == "interpreter" and q.dtype == torch.bfloat16:
            raise NotImplementedError(
                "Triton's interpreter multiplies bfloat16 tiles wrongly (triton-lang/triton#5424); "
                "got bfloat16 inputs. Use float32 or float16, or run on a GPU."
            )

    def new(self, shape: tuple[int, ...], dtype: torch.dtype, fill: float = 0.0) -> Tensor:
        """An output: uninitialised if kernels write all of it, filled if a packed call may not."""
        if self.packed:
            return torch.full(shape, fill, dtype=dtype, device=self.q.device)
        return torch.empty(shape, dtype=dtype, device=self.q.device)

    def or_dummy(self, tensor: Tensor | None) -> Tensor:
        """Any pointer will do for an argument that the variant does not read."""
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
            "types_ptr": self.or_dummy(self.types),
            "bias_ptr": self.or_dummy(self.bias),
            "scale_ptr": self.or_dummy(self.scale),
            "cu_seqlens_q_ptr": self.or_dummy(self.cu_q),
            "cu_seqlens_k_ptr": self.or_dummy(self.cu_k),
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

    def plan(self, kind: str) -> dict[str, object]:
        """The key blocks of every sequence sorted by class, for kernel ``kind``."""
        if self.types is None:
            return {"plan_ptr": self.q, "plan_stride": 0}
        block_n = self.variant.tile(kind).block_n
        shape = (self.num_sequences, self.max_keys, self.variant.num_types, block_n)
        if self.blocks is not None:
            part = plan.section(self.blocks, *shape)
        else:
            part = torch.empty(plan.section_size(*shape), dtype=torch.int32, device=self.q.device)
            plan.sort(part, self.types, self.cu_k, *shape[1:])
        return {"plan_ptr": part, "plan_stride": plan.row_stride(self.max_keys, block_n)}


def addressable(x: Tensor) -> Tensor:
    """``x``, copied if its last dimension has gaps or a tile's offsets do not fit 32 bits."""
    fits = x.stride(-3) * MAX_TILE_ROWS < 2**31
    return x if x.stride(-1) == 1 and fits else x.contiguous()


def _arch(device: torch.device) -> str:
    if isinstance(plan_kernel, InterpretedFunction):
        return "interpreter"
    return _arch_of_gpu(device.index if device.index is not None else torch.cuda.current_device())


@cache
def _arch_of_gpu(index: int) -> str:
    # Chips of the MI200 and MI300 families share the 64 KB of local memory that their table row
    # assumes.
    if torch.version.hip is not None:
        return "gfx942"
    return arch_of_capability(*torch.cuda.get_device_capability(index))
