"""States of machines and packages, made up."""

from avar_fast.doctor.machine import MachineState
from avar_fast.doctor.packages import PACKAGES, PackageState

CPU = MachineState({}, {"eager": "", "sdpa": "", "cpu": "", "triton": "no device"}, None)
H100 = MachineState({}, {"eager": "", "triton": ""}, (9, 0))
T4 = MachineState({}, {"eager": "", "triton": "needs 8.0"}, (7, 5))


def packages(*missing, **broken):
    """All packages installed, but those missing, and those broken as module_name="error"."""
    errors = {name.replace("_", "-"): error for name, error in broken.items()}
    return {
        name: PackageState(name, None if name in missing else "1.0", "", errors.get(name, ""))
        for name in PACKAGES
    }
