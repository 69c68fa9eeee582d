"""Makes this process run all kernels of avar_kernels, compiled, on an emulated chip."""

from avar_kernels import backends
from avar_kernels.triton_backend import launch_inputs
from avar_kernels.triton_backend.tiles import arch_of_capability

from .emulator import driver


def emulate(chip: str) -> None:
    """Kernels take CPU tensors, with the tiles of ``chip``; a process may change its chip."""
    capability = int(chip.removeprefix("sm_"))
    driver.install(capability)
    row = arch_of_capability(*divmod(capability, 10))
    launch_inputs._arch = lambda device: row
    # The public functions then give CPU tensors to the Triton kernels.
    backends.interpreting = lambda: True
