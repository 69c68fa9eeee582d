"""Prefixes that the sequences of a cache share, sorted once per decoding step for all layers."""

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from .key_plan import as_kernels_read, dtype_of_types
from .registration import register_operator
from .validation import check_integers, check_num_types, check_types, refuse
from .value_checks import check_key_values, check_prefix_values


class PrefixPlan(NamedTuple):
    """What ``plan_prefixes`` returns; ``visual_attn_with_kvcache`` takes it as ``prefix_index``.

    P prefixes of Lp keys, B sequences."""

    index: Tensor
    """(B,) int32: the prefix of each sequence, -1 for none; checked."""
    key_types: Tensor | None
    """(P, Lp), checked: int32 where the Triton kernels run, else int8. None: all 0."""
    num_types: int
    order: Tensor
    """(B,) int32: the sequences, sorted by their prefix. Those of one prefix keep their order."""
    offsets: Tensor
    """(P + 1,) int32: the sequences of prefix p are ``order[offsets[p] : offsets[p + 1]]``."""

    @property
    def num_prefixes(self) -> int:
        return self.offsets.numel() - 1


def plan_prefixes(
    prefix_index: Tensor,
    prefix_key_types: Tensor | None = None,
    *,
    num_prefixes: int | None = None,
    num_types: int = 3,
) -> PrefixPlan:
    """Checks and sorts the prefixes of a decoding step once, for every layer.

    Args:
        prefix_index: (B,) int32: the prefix of each sequence, -1 for none.
        prefix_key_types: (P, Lp) integers below ``num_types``, negative where the key does not
            exist. None: all 0.
        num_prefixes: P; needed where ``prefix_key_types`` is None.
        num_types: number of types, 1 to 16.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
    """
    check_num_types(num_types)
    if not isinstance(prefix_index, Tensor):
        raise TypeError(
            f"prefix_index must be an int32 torch.Tensor; got {type(prefix_index).__name__}."
        )
    check_integers("prefix_index", prefix_index, (None,), prefix_index.device)
    if prefix_index.dtype != torch.int32:
        raise TypeError(
            f"prefix_index must be int32; got {prefix_index.dtype}. Use .to(torch.int32)."
        )
    if prefix_key_types is not None:
        check_types(prefix_key_types)
        check_integers("prefix_key_types", prefix_key_types, (None, None), prefix_index.device)
        if num_prefixes not in (None, len(prefix_key_types)):
            refuse(
                "num_prefixes",
                f"{len(prefix_key_types)}, as of prefix_key_types",
                num_prefixes,
                "Leave it out where the types are given.",
            )
        num_prefixes = len(prefix_key_types)
    if num_prefixes is None:
        raise ValueError("num_prefixes must be given where prefix_key_types is None; got None.")
    if isinstance(num_prefixes, bool) or not isinstance(num_prefixes, int):
        raise TypeError(f"num_prefixes must be an int; got {type(num_prefixes).__name__}.")
    if num_prefixes < 0:
        refuse("num_prefixes", "0 or more", num_prefixes, "Pass the number of prefixes, P.")
    order, offsets, types = _sort(prefix_index, prefix_key_types, num_prefixes, num_types)
    types = None if prefix_key_types is None else types
    return PrefixPlan(prefix_index, types, num_types, order, offsets)


def _check_and_sort(
    prefix_index: Tensor, key_types: Tensor | None, num_prefixes: int, num_types: int
) -> tuple[Tensor, Tensor, Tensor]:
    check_prefix_values(prefix_index, num_prefixes)
    check_key_values(key_types, num_types, "prefix_key_types")
    ordered, order = prefix_index.sort(stable=True)
    prefixes = torch.arange(num_prefixes + 1, dtype=torch.int32, device=prefix_index.device)
    offsets = torch.searchsorted(ordered, prefixes, out_int32=True)
    types = offsets.new_empty(0) if key_types is None else as_kernels_read(key_types)
    return order.int(), offsets, types


def _fake(prefix_index, key_types, num_prefixes, num_types):
    types = prefix_index.new_empty(0)
    if key_types is not None:
        dtype = dtype_of_types(key_types.device)
        types = torch.empty(key_types.shape, dtype=dtype, device=key_types.device)
    return torch.empty_like(prefix_index), prefix_index.new_empty(num_prefixes + 1), types


def _no_backward(*unused: Any) -> NoReturn:
    raise NotImplementedError("prefix_index holds integers and has no gradient.")


_sort = register_operator(
    "sort_prefixes(Tensor prefix_index, Tensor? key_types, SymInt num_prefixes, SymInt num_types)"
    " -> (Tensor, Tensor, Tensor)",
    _check_and_sort,
    _fake,
    _no_backward,
)
