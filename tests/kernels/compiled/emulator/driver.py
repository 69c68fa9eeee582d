"""A stand-in for Triton's driver: kernels are compiled for a chip and run by the emulator."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from avar_kernels.triton_backend.descriptors import wrong_products
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver as runtime_driver

from .errors import KernelFaultError
from .launch import Launch, kernel_of

# Limits and names that Triton asks a device for; shared memory per block by compute capability.
_SHARED_LIMIT_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
_THREADS_LIMIT = 1024


class Launcher:
    """Takes the place of the launcher that Triton compiles for every signature."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._metadata = metadata
        if metadata.num_ctas != 1 or metadata.global_scratch_size or metadata.profile_scratch_size:
            raise NotImplementedError("clusters and scratch memory")
        names = source.fn.arg_names
        signature = {
            names.index(key)
            if isinstance(key, str)
            else key[0]
            if isinstance(key, tuple)
            else key: x
            for key, x in source.signature.items()
        }
        self._types = [signature[position] for position in range(len(names))]

    def __call__(self, x: int, y: int, z: int, stream: int, ptx: str, *rest: Any) -> None:
        """rest: packed metadata, launch metadata, two hooks, then the arguments."""
        bits, tensors = [], []
        for kind, value in zip(self._types, rest[4:], strict=True):
            if kind == "constexpr":
                continue
            if isinstance(value, torch.Tensor):
                tensors.append(value)
                bits.append(value.data_ptr())
            elif kind == "fp32":
                bits.append(struct.unpack("<I", struct.pack("<f", value))[0])
            elif kind[0] in "iu":
                bits.append(int(value) & (2**64 - 1))
            else:
                raise NotImplementedError(f"an argument of type {kind}")
        kernel = kernel_of(ptx)
        # Behind the arguments stand scratch pointers, which nothing uses.
        bits += [0] * (len(kernel.program.parameters) - len(bits))
        threads = 32 * self._metadata.num_warps
        active().run(Launch(kernel, (x, y, z), threads, self._metadata.shared, bits, tensors))


class _Device:
    """What Triton asks of the CUDA module. A loaded kernel is its PTX."""

    def __init__(self, capability: int) -> None:
        self._capability = capability
        self._shared_bytes = _SHARED_LIMIT_BYTES[capability]
        self.ptx = ""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self._shared_bytes, "multiprocessor_count": 4, "warpSize": 32}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple:
        """(module, function, registers, spills, most threads).

        Raises:
            KernelFaultError: the machine code, which nothing here runs, reads a wrong descriptor.
        """
        wrong = wrong_products(binary) if self._capability == 90 else []
        if wrong:
            raise KernelFaultError(f"{name}: descriptors in the wrong registers: {wrong}")
        return name, self.ptx, 0, 0, _THREADS_LIMIT


class EmulatedDriver(DriverBase):
    """A device of one compute capability whose memory is the CPU's."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.utils = _Device(capability)
        self.launcher_cls = Launcher
        self.run: Callable[[Launch], None] = Launch.run
        """What a launch does; tests may put a function in between."""

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("an emulated chip has no time")

    def get_current_device(self) -> int:
        return self.capability  # Triton keeps compiled kernels by device

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int) -> int:
        return 0


def active() -> EmulatedDriver:
    """The driver of the chip that this process emulates."""
    driver = runtime_driver.active
    assert isinstance(driver, EmulatedDriver), driver
    return driver


def _remember_ptx(
    module: object, function: object, name: str, metadata_group: dict[str, str], hash: str
) -> None:
    ptx = next(path for file, path in metadata_group.items() if file.endswith(".ptx"))
    active().utils.ptx = Path(ptx).read_text()


def install(capability: int) -> None:
    """Makes all kernels of this process run on an emulated chip, 90 for sm_90, on CPU tensors."""
    runtime_driver.set_active(EmulatedDriver(capability))
    knobs.runtime.kernel_load_start_hook.add(_remember_ptx)
