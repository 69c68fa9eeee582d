"""What launches need to know about their tensors' device, which need not be the current one."""

import contextlib
import warnings
from functools import cache

import torch
from torch import Tensor

from .tiles import arch_of_capability

# The families that the table row "gfx942" is meant for. All have 64 KB of local memory or more.
KNOWN_AMD_CHIPS = ("gfx90a", "gfx940", "gfx941", "gfx942", "gfx950")
_NO_CHANGE = contextlib.nullcontext()


def on_device(x: Tensor) -> contextlib.AbstractContextManager:
    """A context in which Triton, which launches on the current device, launches on the tensor's."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return _NO_CHANGE
    return torch.cuda.device(x.device)


@cache
def arch_of_gpu(index: int) -> str:
    """The row of the tile tables for a GPU. An AMD chip that none is meant for is named in a
    warning, once."""
    if torch.version.hip is None:
        return arch_of_capability(*torch.cuda.get_device_capability(index))
    chip = torch.cuda.get_device_properties(index).gcnArchName.partition(":")[0]
    if chip not in KNOWN_AMD_CHIPS:
        warnings.warn(
            f"attention on {torch.cuda.get_device_name(index)} ({chip}) uses the tile sizes of"
            " gfx942, as there are none for this chip. They may be slow, or need more local memory"
            " than it has; backend='eager' does without.",
            stacklevel=2,
        )
    return "gfx942"


def multiprocessors(device: torch.device) -> int:
    """The number of multiprocessors (compute units) of a GPU; a few for Triton's interpreter, so
    that tests split their work too."""
    if device.type != "cuda":
        return 4
    return _multiprocessors(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count
