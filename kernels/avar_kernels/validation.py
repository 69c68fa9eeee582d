"""Argument checks of the public functions.

Shapes, dtypes, devices and numbers are checked here, before dispatch. ``value_checks`` checks the
*values* of tensors (types in range, offsets in order), inside the operator.
"""

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from .types import MAX_TYPES, AttnParams

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGER_DTYPES = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def refuse(name: str, expected: str, got: object, remedy: str) -> NoReturn:
    """Raises ValueError in the form that all messages have."""
    raise ValueError(f"{name} must be {expected}; got {got}. {remedy}")


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """Casts to autocast's dtype where autocast is on, as torch's own attention does.

    float64 tensors, and arguments that are no tensors, stay as they are."""
    first = tensors[0]
    if not isinstance(first, Tensor) or not torch.is_autocast_enabled(first.device.type):
        return tensors
    dtype = torch.get_autocast_dtype(first.device.type)
    return tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.dtype in FLOAT_DTYPES[:3] else x for x in tensors
    )


def check_qkv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packed: bool,
    paged: bool = False,
    names: tuple[str, str] = ("k", "v"),
) -> None:
    """Raises unless q, k, v are (B, L, H, D), or (T, H, D) when packed, and fit one another.

    With ``paged``, k and v are pages of a cache, whose number need not be q's batch size. ``names``
    are those of k and v in messages."""
    k_name, v_name = names
    layout, rank = ("(T, H, D)", 3) if packed else ("(B, L, H, D)", 4)
    for name, x in (("q", q), (k_name, k), (v_name, v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}.")
        if x.dim() != rank:
            refuse(name, f"of shape {layout}", f"shape {tuple(x.shape)}", "Reshape it.")
        if x.dtype not in FLOAT_DTYPES:
            raise TypeError(
                f"{name} must be float32, float16, bfloat16 or float64; got {x.dtype}. Convert it"
                " with .to()."
            )
        if x.dtype != q.dtype:
            raise TypeError(
                f"{name} must have q's dtype {q.dtype}; got {x.dtype}. Use {name}.to(q.dtype)."
            )
        if x.device != q.device:
            refuse(name, f"on q's device {q.device}", x.device, f"Use {name}.to(q.device).")
    if k.shape[:-1] != v.shape[:-1]:
        refuse(
            v_name,
            f"of shape {(*k.shape[:-1], 'Dv')}, as {k_name}",
            f"shape {tuple(v.shape)}",
            "Every key needs a value.",
        )
    if not packed and not paged and q.shape[0] != k.shape[0]:
        refuse(k_name, f"of batch size {q.shape[0]}, as q", k.shape[0], "Batch sizes must agree.")
    if q.shape[-1] != k.shape[-1]:
        refuse(
            k_name,
            f"of head dimension {q.shape[-1]}, as q",
            k.shape[-1],
            f"q and {k_name} must agree.",
        )
    if q.shape[-1] == 0 or v.shape[-1] == 0:
        refuse(
            f"q, {k_name}, {v_name}",
            "of head dimension 1 or more",
            (q.shape[-1], v.shape[-1]),
            "Empty heads mean nothing.",
        )
    heads, kv_heads = q.shape[-2], k.shape[-2]
    if kv_heads == 0 or heads == 0 or heads % kv_heads:
        refuse(
            "q",
            f"of a number of heads that is a positive multiple of {k_name}'s",
            f"{heads} query heads on {kv_heads} key heads",
            "Grouped-query attention needs H % Hkv == 0.",
        )


def check_num_types(num_types: int) -> None:
    """Raises unless num_types is an int in range."""
    if isinstance(num_types, bool) or not isinstance(num_types, int):
        raise TypeError(f"num_types must be an int; got {type(num_types).__name__}.")
    if not 1 <= num_types <= MAX_TYPES:
        refuse("num_types", f"in 1..{MAX_TYPES}", num_types, "Merge types or renumber them.")


def checked_params(
    q: Tensor,
    num_types: int,
    softmax_scale: float | None,
    causal: bool,
    window_size: tuple[int, int],
) -> AttnParams:
    """The numbers of a call, with the default softmax_scale of q's head dimension; raises if one is
    wrong."""
    check_num_types(num_types)
    check_flag("causal", causal)
    window = check_window(window_size)
    scale = softmax_scale_or_default(softmax_scale, q.shape[-1])
    return AttnParams(num_types, scale, causal, window)


def check_types(key_types: Tensor) -> None:
    """Raises unless key_types is an integer tensor."""
    if not isinstance(key_types, Tensor):
        raise TypeError(
            f"key_types must be an integer torch.Tensor or None; got {type(key_types).__name__}."
        )
    if key_types.dtype not in INTEGER_DTYPES:
        raise TypeError(
            f"key_types must be of an integer dtype; got {key_types.dtype}. Use .to(torch.int32)."
        )


def check_types_fit(key_types: Tensor, k: Tensor) -> None:
    """Raises unless there is one type per key, where the keys are."""
    if key_types.shape != k.shape[:-2]:
        refuse(
            "key_types",
            f"of shape {tuple(k.shape[:-2])}, one type per key",
            f"shape {tuple(key_types.shape)}",
            "Give every key of k its type.",
        )
    if key_types.device != k.device:
        refuse("key_types", f"on {k.device}", key_types.device, "Use key_types.to(q.device).")


def check_integers(
    name: str, x: Tensor, shape: tuple[int | None, ...], device: torch.device
) -> None:
    """Raises unless x is an integer tensor of the shape (None: any length) on the device."""
    if not isinstance(x, Tensor) or x.dtype not in INTEGER_DTYPES:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be an integer torch.Tensor; got {got}.")
    _check_place(name, x, shape, device)


def check_floats(name: str, x: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Raises unless x is a floating tensor of the shape on the device."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating torch.Tensor; got {got}.")
    _check_place(name, x, shape, device)


def _check_place(name: str, x: Tensor, shape: tuple[int | None, ...], device: torch.device) -> None:
    if x.dim() != len(shape) or any(
        want is not None and got != want for got, want in zip(x.shape, shape, strict=True)
    ):
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        want = f"({sizes}{',' if len(shape) == 1 else ''})"
        refuse(name, f"of shape {want}", f"shape {tuple(x.shape)}", "See the function's docstring.")
    if x.device != device:
        refuse(name, f"on q's device {device}", x.device, f"Use {name}.to(q.device).")


def per_head_table(name: str, table: Tensor | None, q: Tensor, num_types: int) -> Tensor | None:
    """The table as (H, num_types) in the accumulation dtype; None where there is none.

    Raises unless it is (num_types,) or (H, num_types), floating, and on q's device."""
    if table is None:
        return None
    heads = q.shape[-2]
    if not isinstance(table, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or None; got {type(table).__name__}.")
    if not table.dtype.is_floating_point:
        raise TypeError(
            f"{name} must be of a floating dtype, float32 by contract; got {table.dtype}."
        )
    if table.device != q.device:
        refuse(name, f"on q's device {q.device}", table.device, f"Use {name}.to(q.device).")
    if tuple(table.shape) not in ((num_types,), (heads, num_types)):
        refuse(
            name,
            f"of shape ({num_types},) or ({heads}, {num_types})",
            f"shape {tuple(table.shape)}",
            "One value per type, or per query head and type.",
        )
    accumulate = torch.float64 if q.dtype == torch.float64 else torch.float32
    return table.to(accumulate).expand(heads, num_types)


def softmax_scale_or_default(softmax_scale: float | None, head_dim: int) -> float:
    """D ** -0.5 unless given; raises unless positive and finite."""
    if softmax_scale is None:
        return head_dim**-0.5
    if isinstance(softmax_scale, bool) or not isinstance(softmax_scale, int | float):
        raise TypeError(
            f"softmax_scale must be a number or None; got {type(softmax_scale).__name__}. The"
            " default is D ** -0.5."
        )
    scale = float(softmax_scale)
    if not (math.isfinite(scale) and scale > 0.0):
        refuse("softmax_scale", "positive and finite", scale, "The default is D ** -0.5.")
    return scale


def check_window(window_size: tuple[int, int]) -> tuple[int, int]:
    """(left, right) as plain ints, -1 for unlimited."""
    if (
        not isinstance(window_size, tuple | list)
        or len(window_size) != 2
        or any(isinstance(x, bool) or not isinstance(x, int) or x < -1 for x in window_size)
    ):
        refuse(
            "window_size",
            "(left, right), each -1 (unlimited) or >= 0",
            window_size,
            "Use (-1, -1) for none.",
        )
    return window_size[0], window_size[1]


def check_flag(name: str, flag: bool) -> None:
    """Raises unless the argument is a bool, as None or a tensor would silently count as one."""
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be a bool; got {type(flag).__name__}.")
