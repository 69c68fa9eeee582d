"""What the emulator raises."""


class UnsupportedError(NotImplementedError):
    """An instruction, a modifier or a shape that the emulator does not know."""


class KernelFaultError(AssertionError):
    """A fault of the kernel that runs: a race, a bad address, a missing wait."""
