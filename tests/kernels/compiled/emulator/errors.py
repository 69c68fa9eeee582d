"""What the emulator raises."""


class Unsupported(NotImplementedError):
    """An instruction, a modifier or a shape that the emulator does not know."""


class Report(AssertionError):
    """A fault of the kernel that runs: a race, a bad address, a missing wait."""
