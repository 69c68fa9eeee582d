"""Which implementations run here, and which one a call takes."""

import importlib.util
import os
import warnings
from dataclasses import dataclass
from functools import cache

import torch

from . import cpu

BACKENDS = ("eager", "sdpa", "cpu", "triton")
MIN_CAPABILITY = (8, 0)
MAX_HEAD_DIM = {"cpu": cpu.MAX_HEAD_DIM, "triton": 256}


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend runs on this machine; truthy if so, otherwise ``reason`` says why not."""

    available: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.available


def interpreting() -> bool:
    """Whether Triton runs kernels in its CPU interpreter.

    Triton itself reads the variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def available_backends(device: torch.device | None = None) -> dict[str, BackendStatus]:
    """Every backend by name, truthy where it runs on this machine, with the reason where not.

    Args:
        device: the GPU that "triton" would run on; by default the current one.

    Example:
        >>> available_backends()["triton"].reason
        'no CUDA or ROCm device, and TRITON_INTERPRET is not 1'
    """
    return {name: _status(name, device) for name in BACKENDS}


def _status(name: str, device: torch.device | None) -> BackendStatus:
    if name == "triton":
        return _triton_status(device)
    return _cpu_status() if name == "cpu" else BackendStatus(True)


def _cpu_status() -> BackendStatus:
    return _status_because(cpu.WHY_NOT)


def _triton_status(device: torch.device | None = None) -> BackendStatus:
    """For tensors of this device; for the current GPU if it is None or no GPU."""
    if not _triton_is_installed():
        return BackendStatus(False, "triton is not installed (it is published for Linux only)")
    if interpreting():
        return BackendStatus(True)
    if device is not None and device.type == "cuda":
        return _status_because(_why_not_on_gpu(device.index))
    if not torch.cuda.is_available():
        return BackendStatus(False, "no CUDA or ROCm device, and TRITON_INTERPRET is not 1")
    return _status_because(_why_not_on_gpu(None))


def _status_because(why_not: str) -> BackendStatus:
    return BackendStatus(not why_not, why_not)


def _triton_is_installed() -> bool:
    return _is_installed("triton")


def _why_not_on_gpu(index: int | None) -> str:
    return _lack_of_gpu(torch.cuda.current_device() if index is None else index)


def _warn_of_eager(reason: str) -> None:
    _warn_once(
        "attention on this GPU takes the backend 'eager', which is slow and keeps matrices of L x"
        f" L, because 'triton' does not run: {reason}. Pass backend='eager' to keep it without"
        " this warning."
    )


for _asked in (_triton_is_installed, _why_not_on_gpu, _warn_of_eager):
    # In a compiled model the answer is a constant of the graph. The mark is what
    # torch.compiler.assume_constant_result sets; that function imports the compiler, and triton.
    _asked._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _lack_of_gpu(index: int) -> str:
    """What a GPU lacks for the kernels; empty if nothing."""
    if torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(index)
        if (major, minor) < MIN_CAPABILITY:
            name = torch.cuda.get_device_name(index)
            return f"needs compute capability 8.0 or newer; {name} has {major}.{minor}"
    return ""


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def triton_takes(device: torch.device) -> bool:
    """Whether the Triton kernels run on tensors of this device."""
    return (device.type == "cuda" or interpreting()) and bool(_triton_status(device))


def resolve_backend(
    name: str | None, device: torch.device, dtype: torch.dtype, head_dim: int
) -> str:
    """The backend that a call takes. A named one is never replaced by another: it works or raises.

    Args:
        name: the backend asked for, or None for the best.
        device, dtype: of q.
        head_dim: the larger of D and Dv.

    Raises:
        ValueError: unknown name.
        RuntimeError: the backend does not run here, or not on this device or dtype.
    """
    if name is None:
        fits_triton = dtype != torch.float64 and head_dim <= MAX_HEAD_DIM["triton"]
        if device.type == "cuda" and fits_triton:
            status = _triton_status(device)
            if status:
                return "triton"
            _warn_of_eager(status.reason)
        if device.type != "cpu":
            return "eager"
        fits_cpu = dtype != torch.float64 and head_dim <= MAX_HEAD_DIM["cpu"]
        return "cpu" if fits_cpu and _cpu_status() else "sdpa"
    if name not in BACKENDS:
        raise ValueError(f"backend must be None or one of {', '.join(BACKENDS)}; got {name!r}.")
    status = _status(name, device)
    if not status:
        raise RuntimeError(
            f"backend {name!r} does not run here: {status.reason}. Use backend=None to let avar"
            " choose."
        )
    if name in ("sdpa", "cpu") and device.type != "cpu":
        raise RuntimeError(
            f"backend {name!r} runs on CPU tensors; got {device}. Use backend=None or 'eager'."
        )
    if name in MAX_HEAD_DIM:
        if dtype == torch.float64:
            raise RuntimeError(
                f"backend {name!r} takes float32, float16 and bfloat16; got float64. Use 'eager' or"
                " 'sdpa'."
            )
        if head_dim > MAX_HEAD_DIM[name]:
            raise RuntimeError(
                f"backend {name!r} takes head dimensions up to {MAX_HEAD_DIM[name]}; got"
                f" {head_dim}. Use 'eager', or 'sdpa' on CPU."
            )
    if name == "triton" and device.type != "cuda" and not interpreting():
        raise RuntimeError(
            f"backend 'triton' needs tensors on a GPU; got {device}. Use q.cuda(), or 'cpu' on CPU."
        )
    return name
