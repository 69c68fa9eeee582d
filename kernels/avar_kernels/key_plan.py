"""Key types prepared once per batch, for all layers that attend to the same keys.

Checking the types and sorting the key blocks by class (docs/DESIGN.md) depends on the keys alone. A
model does both once per forward pass and gives every layer the plan instead of the types. A layer
then launches its attention kernel and nothing else.
"""

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from .backends import triton_takes
from .packed_validation import check_packed, packed_or_none
from .registration import register_operator
from .types import PackedLengths, with_absent_as_one
from .validation import check_flag, check_num_types, check_types
from .value_checks import check_key_values, check_packed_values


class KeyPlan(NamedTuple):
    """What ``plan_keys`` returns; ``visual_attn_func`` takes it as ``key_types``."""

    key_types: Tensor
    """(B, Lk), or packed (Tk,), checked: int32 where the Triton kernels run, else int8."""
    num_types: int
    packed: PackedLengths | None
    """The offsets that the plan was made for."""
    blocks: Tensor | None
    """int32, the key blocks sorted by class, which the Triton kernels walk; None where they do not
    run, and for a plan that is not sorted."""

    def check_fits(self, num_types: int, packed: PackedLengths | None) -> None:
        """Raises ValueError unless the plan was made for a call's types and offsets."""
        if self.num_types != num_types:
            raise ValueError(
                f"num_types must be {self.num_types}, as in the plan; got {num_types}. Make the"
                " plan with the same num_types."
            )
        same = packed is self.packed is None or (
            packed is not None
            and self.packed is not None
            and packed.cu_seqlens_q is self.packed.cu_seqlens_q
            and packed.cu_seqlens_k is self.packed.cu_seqlens_k
            and packed.prefix_index is self.packed.prefix_index
            and packed[2:4] == self.packed[2:4]
        )
        if not same:
            raise ValueError(
                "key_types must be a plan made with this call's cu_seqlens, max_seqlen and"
                " prefix_index; it was made with others. Call plan_keys with the same tensors."
            )


def plan_keys(
    key_types: Tensor,
    *,
    num_types: int = 3,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    prefix_index: Tensor | None = None,
    sort: bool = True,
) -> KeyPlan:
    """Checks and sorts the keys of a batch once, for every layer of a forward pass.

    Args:
        key_types: (B, Lk) integers below ``num_types``, negative where the key does not exist; or
            (Tk,) with the four arguments of packed sequences, as ``visual_attn_varlen_func`` takes
            them.
        num_types: number of types, 1 to 16.
        cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k: all or none.
        prefix_index: with them, as ``visual_attn_varlen_func`` takes it.
        sort: whether to sort the key blocks. False saves the time where ``is_decoding`` holds for
            the layers, whose kernel does not read the blocks. Other kernels then sort them in every
            layer; results are the same.

    Returns:
        KeyPlan. It belongs to these keys and offsets: pass the same offset tensors to
        ``visual_attn_varlen_func``.

    Raises:
        TypeError, ValueError: as ``visual_attn_func`` and ``visual_attn_varlen_func`` raise.
    """
    lengths = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    packed = packed_or_none(*lengths, prefix_index)
    check_num_types(num_types)
    check_types(key_types)
    if key_types.dim() != (1 if packed else 2):
        raise ValueError(
            f"key_types must be {'(Tk,) when packed' if packed else '(B, Lk)'}; got shape"
            f" {tuple(key_types.shape)}. Give one type per key."
        )
    if packed is not None:
        check_packed(packed, key_types.device)
    check_flag("sort", sort)
    cu_q, cu_k, max_q, max_k, _ = packed or (None, None, 0, 0, None)
    sort = sort and triton_takes(key_types.device)
    types, blocks = _prepare_keys(
        key_types, cu_q, cu_k, max_q, max_k, prefix_index, num_types, sort
    )
    return KeyPlan(types, num_types, packed, blocks if sort else None)


def dtype_of_types(device: torch.device) -> torch.dtype:
    """The dtype in which the kernels on a device read key types."""
    return torch.int32 if triton_takes(device) else torch.int8


def as_kernels_read(key_types: Tensor) -> Tensor:
    """A new tensor of key types, all absent keys -1."""
    types = with_absent_as_one(key_types)
    return types.to(dtype_of_types(key_types.device), copy=True).contiguous()


def _check_and_sort(
    key_types: Tensor,
    cu_seqlens_q: Tensor | None,
    cu_seqlens_k: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    prefix_index: Tensor | None,
    num_types: int,
    sort: bool,
) -> tuple[Tensor, Tensor]:
    """The types as the kernels read them, and the sorted blocks (empty if not asked for).

    An operator, because it reads values, which torch.compile cannot trace."""
    check_key_values(key_types, num_types)
    if cu_seqlens_q is not None and cu_seqlens_k is not None:
        lengths = PackedLengths(
            cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, prefix_index
        )
        check_packed_values(lengths, None, key_types.shape[0])
    types = as_kernels_read(key_types)
    if not sort:
        return types, types.new_empty(0)
    from .triton_backend.block_lists import ListsLayout, sort_for_every_size

    layout = ListsLayout.of(types, cu_seqlens_k, max_seqlen_k, num_types)
    return types, sort_for_every_size(types, cu_seqlens_k, layout)


def _fake(
    key_types, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, prefix_index, num_types, sort
):
    types = torch.empty(
        key_types.shape, dtype=dtype_of_types(key_types.device), device=key_types.device
    )
    if not sort:
        return types, types.new_empty(0)
    from .triton_backend.block_lists import ListsLayout

    layout = ListsLayout.of(key_types, cu_seqlens_k, max_seqlen_k, num_types)
    return types, types.new_empty(layout.total_size())


def _no_backward(*unused: Any) -> NoReturn:
    raise NotImplementedError("key types are integers and have no gradient.")


_prepare_keys = register_operator(
    "prepare_keys(Tensor key_types, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k,"
    " SymInt max_seqlen_q, SymInt max_seqlen_k, Tensor? prefix_index, SymInt num_types, bool sort)"
    " -> (Tensor, Tensor)",
    _check_and_sort,
    _fake,
    _no_backward,
)
