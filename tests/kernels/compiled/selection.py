"""Which cases run on which emulated chip, and which of them belong to ``make test``.

The others carry the marker ``compiled``. A case costs the compilation of six kernels, about ten
seconds the first time; emulation takes less.
"""

import pytest

from .chip_cases import CASES

CHIPS = ("sm_80", "sm_89", "sm_90", "sm_120")
FAULTY_KERNELS = ("forward", "dq", "dkdv")
# Every chip, element type and kernel at least once, as few compilations as possible.
SUBSET = (
    "sm_80:bfloat16:long_typed",
    "sm_80:bfloat16:prefixes",
    "sm_89:bfloat16:long_packed",
    "sm_90:bfloat16:long_typed",
    "sm_90:bfloat16:prefixes",
    "sm_90:float16:long_rich",
    "sm_90:float32:short",
    "sm_120:float16:odd",
)
# float32 products are exact sums of ordinary arithmetic, slow to emulate; float16 differs from
# bfloat16 in the instructions' last letters.
FLOAT32 = ("short", "small", "groups", "dim_17_value_100", "packed")
FLOAT16 = (
    "long_rich", "odd", "long_window", "wide", "small", "untyped_80", "prefixes", "prefixes_rich",
)  # fmt: skip


def requests_of(chip: str) -> list:
    """CHIP:DTYPE:CASE of every case of a chip, as parameters of a test."""
    half = CASES if chip == "sm_90" else FLOAT16
    cases = {"bfloat16": CASES, "float16": half, "float32": FLOAT32}
    requests = [f"{chip}:{dtype}:{name}" for dtype, names in cases.items() for name in names]
    return [in_subset(request, request in SUBSET) for request in requests]


def in_subset(request: str, member: bool):
    """A parameter, marked ``compiled`` unless it is a member of the subset."""
    return pytest.param(request, marks=[] if member else [pytest.mark.compiled])
