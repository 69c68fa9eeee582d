"""Calls for the tiles of GPUs, long enough that the loops over plain blocks go round several times.

They add to ``DEVICE_CASES`` of the interpreter's tests, which have short runs of types.
"""

from typing import Any

from ..triton_backend.cases import DEVICE_CASES, Case

_MODEL: dict[str, Any] = {"head_dim": 128, "value_dim": 128, "causal": True}
_UNSCALED: dict[str, Any] = {"bias": 0, "scale": 0}
CASES = DEVICE_CASES | {
    "long_bare": Case(rows=520, keys=520, heads=1, types=None, num_types=1, **_MODEL, **_UNSCALED),
    "long_typed": Case(
        rows=600, keys=600, heads=1, types="both", run=260, **_MODEL, **_UNSCALED
    ),
    "long_rich": Case(rows=300, keys=700, heads=2, run=350, **_MODEL),
    "long_full": Case(rows=70, keys=520, batch=2, types="left", run=200, head_dim=64, value_dim=64),
    "long_packed": Case(
        rows=(5, 290, 0, 33), keys=(5, 290, 0, 400), heads=1, run=200, **_MODEL, **_UNSCALED
    ),
    "long_window": Case(
        rows=500, keys=500, heads=1, run=170, head_dim=64, value_dim=64, window=(300, 7)
    ),
    "groups": Case(
        rows=130, keys=330, batch=2, heads=4, kv_heads=2, run=150, head_dim=64, value_dim=64,
        strided=True, **_UNSCALED,
    ),
    "untyped_80": Case(
        rows=150, keys=150, kv_heads=2, types=None, num_types=1, head_dim=80, value_dim=80,
        **_UNSCALED,
    ),
    "dim_17_value_100": Case(
        rows=140, keys=200, heads=1, head_dim=17, value_dim=100, causal=True
    ),
    "sixteen_types": Case(
        rows=130, keys=400, heads=1, num_types=16, run=130, **_MODEL, **_UNSCALED
    ),
    "hidden": Case(rows=130, keys=260, run=100, hidden=True, **_MODEL),
    "prefixes": Case(
        rows=(40, 150, 0, 33), keys=(300, 150, 0, 33), prefixes=(-1, 0, 0, 0), heads=1, run=200,
        types="left", **_MODEL, **_UNSCALED,
    ),
    "prefixes_rich": Case(
        rows=(140, 40, 0, 50), keys=(140, 40, 330, 50), prefixes=(-1, 0, -1, 2), run=110, **_MODEL
    ),
    "prefixes_groups": Case(
        rows=(0, 40, 70), keys=(200, 40, 70), prefixes=(-1, 0, 0), heads=4, kv_heads=2, run=90,
        head_dim=80, value_dim=40, types="shuffled", causal=True, **_UNSCALED,
    ),
    "prefixes_untyped": Case(
        rows=(0, 140, 20), keys=(200, 140, 20), prefixes=(-1, 0, 0), types=None, num_types=1,
        head_dim=64, value_dim=64, causal=True, **_UNSCALED,
    ),
    "small": Case(rows=33, keys=97, types="shuffled", causal=True, twice=True),
}  # fmt: skip
