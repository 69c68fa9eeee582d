"""Which implementations run here, and which one a call takes."""

import importlib.util
import os
from dataclasses import dataclass

import torch

from . import cpu

BACKENDS = ("eager", "sdpa", "cpu", "triton")
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


def available_backends() -> dict[str, BackendStatus]:
    """Every backend by name, truthy where it runs on this machine, with the reason where not.

    Example:
        >>> available_backends()["triton"].reason
        'no CUDA or ROCm device, and TRITON_INTERPRET is not 1'
    """
    return {
        "eager": BackendStatus(True),
        "sdpa": BackendStatus(True),
        "cpu": _cpu_status(),
        "triton": _triton_status(),
    }


def _cpu_status() -> BackendStatus:
    return BackendStatus(not cpu.WHY_NOT, cpu.WHY_NOT)


def _triton_status() -> BackendStatus:
    if importlib.util.find_spec("triton") is None:
        return BackendStatus(False, "triton is not installed (it is published for Linux only)")
    if interpreting():
        return BackendStatus(True)
    if not torch.cuda.is_available():
        return BackendStatus(False, "no CUDA or ROCm device, and TRITON_INTERPRET is not 1")
    if torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
        return BackendStatus(False, "needs compute capability 8.0 or newer")
    return BackendStatus(True)


def triton_takes(device: torch.device) -> bool:
    """Whether the Triton kernels run on tensors of this device."""
    return bool(_triton_status()) and (device.type == "cuda" or interpreting())


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
        if device.type == "cuda" and fits_triton and _triton_status():
            return "triton"
        if device.type != "cpu":
            return "eager"
        fits_cpu = dtype != torch.float64 and head_dim <= MAX_HEAD_DIM["cpu"]
        return "cpu" if fits_cpu and _cpu_status() else "sdpa"
    if name not in BACKENDS:
        raise ValueError(f"backend must be None or one of {', '.join(BACKENDS)}; got {name!r}.")
    status = available_backends()[name]
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
