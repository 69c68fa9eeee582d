"""The machine: Python, system, processors, GPUs, and the kernel backends on them."""

import os
import platform
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .trials import try_backends


@dataclass(frozen=True)
class MachineState:
    """What the machine has."""

    facts: dict[str, str]
    """Lines for the report, by name."""
    backends: dict[str, str]
    """{kernel backend: "", or why it does not run}."""
    capability: tuple[int, int] | None
    """CUDA's compute capability of the first GPU; (0, 0) of one that is not NVIDIA's; None without
    a GPU."""
    troubles: tuple[str, ...] = ()
    """Why the kernels do not run: torch or avar_kernels does not import, or a call fails with a
    backend that should run; a line each."""

    @property
    def has_gpu(self) -> bool:
        return self.capability is not None


def machine_state() -> MachineState:
    """Looks at the machine and makes a small call with every backend that should run."""
    facts = {
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count()} threads",
    }
    try:
        with warnings.catch_warnings():  # the report says what they say
            warnings.simplefilter("ignore")
            import torch
            from avar_kernels import available_backends, cpu
    # A broken build raises anything.
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}".splitlines()[0]
        return MachineState(facts, {}, None, (trouble,))
    facts["torch is for"] = _build_of(torch)
    gpus = [_describe(torch, i) for i in range(torch.cuda.device_count())]
    facts["GPUs"] = "; ".join(gpus) or "none that torch sees"
    statuses = available_backends()
    if statuses["cpu"]:
        sets = [name for name in cpu.instruction_sets() if name]
        facts["backend cpu takes"] = f"{sets[-1]}, of {', '.join(sets)}"
    tried = try_backends(name for name, status in statuses.items() if status)
    backends = {name: tried.get(name, status.reason) for name, status in statuses.items()}
    troubles = tuple(f"backend {name}: {error}" for name, error in tried.items() if error)
    return MachineState(facts, backends, _capability(torch), troubles)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _build_of(torch: Any) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else "the CPU only"


def _describe(torch: Any, index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    memory = properties.total_memory / 2**30
    return f"{properties.name}, {memory:.0f} GiB, sm_{properties.major}{properties.minor}"


def _capability(torch: Any) -> tuple[int, int] | None:
    if not torch.cuda.is_available():
        return None
    return (0, 0) if torch.version.hip else torch.cuda.get_device_capability(0)
