"""A Triton driver for machines without a GPU: it compiles for a real chip and launches nothing.

The launch path of the Triton backend then runs on CPU tensors to its end, so the host's time can be
measured. What CUDA itself takes is missing: a launch in the driver and allocations.
"""

from typing import Any

import torch

ARCH, CAPABILITY, MULTIPROCESSORS = "sm90", 90, 132


def install(monkeypatch: Any) -> None:
    """Makes backend "triton" take CPU tensors until the patches end; it computes no results."""
    from avar_kernels import backends
    from avar_kernels.triton_backend import cache_launch, launch, launch_inputs
    from triton.runtime import driver

    monkeypatch.setattr(driver, "_active", _driver())
    monkeypatch.setattr(backends, "interpreting", lambda: True)
    monkeypatch.setattr(launch_inputs, "_arch", lambda device: ARCH)
    monkeypatch.setattr(cache_launch, "multiprocessors", lambda device: MULTIPROCESSORS)
    # One, so that heads are not shared out: torch would add up the shares, here on the CPU.
    monkeypatch.setattr(launch, "multiprocessors", lambda device: 1)


class _Chip:
    """What the driver knows of the chip, and what it does with compiled code."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 * 1024, "multiprocessor_count": MULTIPROCESSORS}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, ...]:
        return 1, 1, 0, 0, 1024  # module, function, registers, spills, most threads of a block


class _NoLaunch:
    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        pass


def _driver() -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase

    class StandInDriver(DriverBase):
        def __init__(self) -> None:
            self.utils, self.launcher_cls = _Chip(), _NoLaunch

        @classmethod
        def is_active(cls) -> bool:
            return True

        def map_python_to_cpp_type(self, ty: str) -> str:
            return ty

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", CAPABILITY, 32)

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

        def get_benchmarker(self) -> None:
            return None

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    return StandInDriver()
