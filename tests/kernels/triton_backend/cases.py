"""The calls whose numbers are compared, small enough for Triton's interpreter."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call. Lists of lengths mean a packed call, one entry per sequence."""

    rows: int | tuple[int, ...] = 65
    keys: int | tuple[int, ...] = 65
    batch: int = 1
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 16
    value_dim: int = 16
    dtype: str = "float32"
    num_types: int = 3
    types: str | None = "runs"
    """runs: long runs as in real batches; left, right, both: the same with padding there; shuffled:
    types meet everywhere; none_exists: padding only; None: no types."""
    run: int = 41
    """Keys in a run of one type."""
    bias: float = 1.0
    """Standard deviation of type_bias; 0 for none."""
    scale: float = 1.0
    """Standard deviation of type_scale, whose entries may be negative; 0 for none."""
    hidden: bool = False
    """A bias of -inf: the first head sees nothing, the last one sees no type 0."""
    causal: bool = False
    prefixes: tuple[int, ...] | None = None
    """The prefix of each sequence of a packed call, -1 for none."""
    planned: bool = False
    """With the key blocks that a plan has sorted."""
    window: tuple[int, int] = (-1, -1)
    strided: bool = False
    """q, k, v are views with foreign strides."""
    twice: bool = False
    """Run again and compare bitwise."""


CASES: dict[str, Case] = {
    "one_query_one_key": Case(rows=1, keys=1),
    "ragged_63": Case(rows=63, keys=63, causal=True, bias=0, scale=0),
    "ragged_129": Case(rows=129, keys=129, causal=True, heads=1),
    "float16_129": Case(
        rows=129, keys=129, causal=True, heads=1, dtype="float16", head_dim=32, value_dim=32
    ),
    "untyped": Case(rows=64, keys=96, types=None, bias=0, scale=0, num_types=1),
    "untyped_causal_float16": Case(
        rows=70, keys=70, types=None, bias=0, scale=0, causal=True, dtype="float16"
    ),
    "no_types_but_tables": Case(rows=33, keys=50, types=None, causal=True),
    "more_keys_than_queries": Case(rows=33, keys=97, causal=True, heads=2),
    "more_queries_than_keys": Case(rows=97, keys=40, causal=True, heads=2, kv_heads=2),
    "decode": Case(rows=1, keys=129, causal=True, batch=2),
    "no_keys": Case(rows=5, keys=0, causal=True),
    "no_queries": Case(rows=0, keys=40),
    "gqa_group_7": Case(rows=37, keys=37, heads=7, kv_heads=1, causal=True, twice=True),
    "gqa_two_groups_strided": Case(rows=40, keys=40, heads=4, kv_heads=2, batch=2, strided=True),
    "mqa_float16": Case(rows=40, keys=40, heads=4, kv_heads=1, dtype="float16", causal=True),
    "dim_17": Case(head_dim=17, value_dim=17, heads=1),
    "dim_40_value_24": Case(head_dim=40, value_dim=24, heads=1, causal=True),
    "dim_80_float16": Case(head_dim=80, value_dim=80, heads=1, dtype="float16"),
    "dim_16_value_100": Case(head_dim=16, value_dim=100, heads=1, causal=True),
    "dim_128": Case(rows=70, keys=70, head_dim=128, value_dim=128, heads=1, causal=True),
    "dim_128_float16": Case(
        rows=70, keys=70, head_dim=128, value_dim=128, heads=1, dtype="float16"
    ),
    "dim_256": Case(rows=40, keys=70, head_dim=256, value_dim=256, heads=1, causal=True),
    "left_padding": Case(rows=70, keys=70, batch=2, heads=1, types="left", causal=True),
    "right_padding_float16": Case(
        rows=40, keys=90, batch=2, heads=1, types="right", dtype="float16"
    ),
    "padding_on_both_sides": Case(rows=70, keys=100, heads=1, types="both", window=(30, 9)),
    "all_keys_missing": Case(rows=20, keys=40, heads=1, types="none_exists"),
    "window_both_sides": Case(rows=100, keys=100, heads=1, window=(40, 5)),
    "window_narrow_causal": Case(rows=70, keys=100, heads=1, window=(3, -1), causal=True),
    "window_right_only_lq_gt_lk": Case(rows=100, keys=60, heads=1, window=(-1, 4)),
    "sixteen_types_shuffled": Case(
        rows=66, keys=97, heads=1, num_types=16, types="shuffled", causal=True, twice=True
    ),
    "sixteen_types_float16": Case(
        rows=40, keys=70, heads=1, num_types=16, types="shuffled", dtype="float16"
    ),
    "types_only": Case(rows=66, keys=130, heads=1, bias=0, scale=0),
    "bias_only_large": Case(rows=66, keys=97, heads=2, bias=50, scale=0, causal=True),
    "scale_only_large": Case(rows=66, keys=97, heads=2, bias=0, scale=6, causal=True),
    "hidden_types": Case(rows=66, keys=130, heads=2, causal=True, hidden=True),
    "hidden_types_shuffled": Case(
        rows=40, keys=70, heads=2, types="shuffled", scale=0, hidden=True, dtype="float16"
    ),
    "packed": Case(rows=(5, 33, 0, 40), keys=(5, 33, 0, 40), heads=2, causal=True),
    "packed_empty_on_one_side": Case(
        rows=(0, 20, 7), keys=(11, 0, 50), heads=2, types="shuffled", window=(20, 3)
    ),
    "packed_float16_untyped": Case(
        rows=(17, 34),
        keys=(40, 20),
        heads=2,
        types=None,
        bias=0,
        scale=0,
        causal=True,
        dtype="float16",
    ),
}
# Sequences that share prefixes: 0 is a prompt that reads itself; 2 is one without queries; 4 reads
# without keys of its own, 5 has keys and no queries; 6 is an empty prompt, and 7 its user; 8 has
# more queries than keys; 9 is empty.
_PREFIXES = {
    "rows": (45, 33, 0, 40, 9, 0, 0, 17, 37, 0),
    "keys": (45, 33, 97, 40, 0, 11, 0, 17, 20, 0),
    "prefixes": (-1, 0, -1, 2, 2, 2, -1, 6, 0, 0),
}
CASES |= {
    "prefixes": Case(**_PREFIXES, causal=True, twice=True),
    "prefixes_not_causal": Case(**_PREFIXES, heads=1, planned=True),
    "prefixes_shuffled": Case(**_PREFIXES, heads=1, types="shuffled", causal=True, planned=True),
    "prefixes_float16_types_only": Case(
        **_PREFIXES, heads=1, types="left", causal=True, bias=0, scale=0, dtype="float16"
    ),
    "prefixes_untyped": Case(
        **_PREFIXES, heads=1, types=None, causal=True, bias=0, scale=0, num_types=1
    ),
    "prefixes_no_types_but_tables": Case(**_PREFIXES, types=None, causal=True),
    "prefixes_of_padding": Case(
        rows=(35, 5, 0), keys=(35, 5, 90), prefixes=(-1, 0, 0), heads=1, types="left", causal=True
    ),
    "prefixes_hidden_types": Case(**_PREFIXES, causal=True, hidden=True),
    "prefixes_group_7_dim_72": Case(
        rows=(0, 33, 20), keys=(40, 33, 20), prefixes=(-1, 0, 0), heads=7, kv_heads=1,
        head_dim=72, value_dim=72, types="shuffled", causal=True, planned=True,
    ),
    "prefixes_two_groups_strided": Case(
        rows=(5, 33, 20), keys=(70, 33, 20), prefixes=(2, 2, -1), heads=4, kv_heads=2,
        head_dim=24, value_dim=40, types="both", causal=True, strided=True,
    ),
    "prefixes_dim_80_value_40": Case(
        rows=(0, 33, 20), keys=(97, 33, 20), prefixes=(-1, 0, 0), heads=1,
        head_dim=80, value_dim=40, causal=True, dtype="float16",
    ),
}  # fmt: skip
# For the tiles of GPUs: two blocks of 128 rows or more, and every level and width of a tile table.
_MODEL = {"head_dim": 128, "value_dim": 128, "causal": True}
_UNSCALED = {"bias": 0, "scale": 0}
DEVICE_CASES = {
    "bare": Case(rows=150, keys=200, types=None, num_types=1, **_MODEL, **_UNSCALED),
    "typed": Case(rows=200, keys=200, heads=3, types="both", **_MODEL, **_UNSCALED),
    "rich": Case(rows=200, keys=200, types="shuffled", **_MODEL),
    "packed": Case(rows=(5, 133, 0, 40), keys=(5, 133, 0, 90), **_MODEL, **_UNSCALED),
    "narrow": Case(rows=200, keys=300, head_dim=64, value_dim=64, types="left", window=(50, 3)),
    "odd": Case(
        rows=129, keys=200, head_dim=80, value_dim=40, types="shuffled", causal=True, **_UNSCALED
    ),
    "short": Case(rows=40, keys=70, head_dim=80, value_dim=40, types="shuffled", causal=True),
    "wide": Case(rows=140, keys=150, heads=1, head_dim=256, value_dim=256, causal=True),
}
PACKED_TAIL = 3  # tokens after the last sequence


def make_inputs(name: str, case: Case) -> tuple[dict[str, Tensor | None], dict]:
    """Tensors and options of a case; the seed is the name. Keys that do not exist hold NaN."""
    generator = torch.Generator().manual_seed(
        sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**31
    )
    dtype = getattr(torch, case.dtype)

    def normal(*shape: int, mean: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) + mean

    packed, num_rows, num_keys, leading = _lengths(case)
    heads, kv_heads = case.heads, case.kv_heads
    shape = lambda length, n, dim: (*leading, length, n, dim)  # noqa: E731
    x: dict[str, Tensor | None] = {
        "q": normal(*shape(num_rows, heads, case.head_dim), mean=0.3).to(dtype),
        "k": normal(*shape(num_keys, kv_heads, case.head_dim), mean=0.3).to(dtype),
        "v": normal(*shape(num_keys, kv_heads, case.value_dim), mean=0.3).to(dtype),
        "key_types": _types(case, leading, num_keys, generator),
        "type_bias": case.bias * normal(heads, case.num_types).float() if case.bias else None,
        "type_scale": case.scale * normal(heads, case.num_types).float() if case.scale else None,
        "dout": normal(*shape(num_rows, heads, case.value_dim), mean=0.3).to(dtype),
        "dmass": normal(*shape(num_rows, heads, case.num_types), mean=0.3).float(),
        "dlse": normal(*leading, heads, num_rows, mean=0.3).float(),
    }
    if case.hidden:
        x["type_bias"][0] = x["type_bias"][-1, 0] = float("-inf")
    if x["key_types"] is not None:
        missing = x["key_types"] < 0
        x["k"][missing] = float("nan")
        x["v"][missing] = float("nan")
    if case.strided:
        for which in "qkv":
            x[which] = torch.stack([x[which].transpose(1, 2)] * 2, -2)[..., 0, :].transpose(1, 2)
            assert not x[which].is_contiguous()
    options = {
        "softmax_scale": case.head_dim**-0.5,
        "causal": case.causal,
        "window": case.window,
        "num_types": case.num_types,
        "packed": packed,
    }
    return x, options


def _lengths(case: Case) -> tuple[tuple | None, int, int, tuple[int, ...]]:
    if isinstance(case.rows, int):
        return None, case.rows, case.keys, (case.batch,)
    cu_q, cu_k = (
        torch.tensor([0, *lengths]).cumsum(0).to(torch.int32) for lengths in (case.rows, case.keys)
    )
    # The longest lengths may be given too large.
    prefixes = None
    if case.prefixes is not None:
        prefixes = torch.tensor(case.prefixes, dtype=torch.int32)
    packed = (cu_q, cu_k, max(case.rows) + 9, max(case.keys) + 40, prefixes)
    return packed, int(cu_q[-1]) + PACKED_TAIL, int(cu_k[-1]) + PACKED_TAIL, ()


def _types(
    case: Case, leading: tuple[int, ...], num_keys: int, generator: torch.Generator
) -> Tensor | None:
    if case.types is None:
        return None
    if case.types == "none_exists":
        return torch.full((*leading, num_keys), -1, dtype=torch.int32)
    if case.types == "shuffled":
        return torch.randint(
            -1, case.num_types, (*leading, num_keys), generator=generator, dtype=torch.int32
        )
    types = (torch.arange(num_keys) // case.run % case.num_types).expand(*leading, num_keys).clone()
    if case.types in ("left", "both"):
        types[..., :35] = -1
    if case.types in ("right", "both"):
        types[..., -22:] = -2
    if case.batch > 1:
        types[0, :] = 1  # one entry of the batch without padding
    return types.to(torch.int32)
