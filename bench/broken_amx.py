"""Keeps torch's bfloat16 products from crashing on virtual machines with incomplete AMX.

Such a machine announces AMX without the sizes of its tiles (CPUID leaf 0x1D). Products then run as
on a machine without AMX.
"""

import os
import subprocess
import sys

VARIABLE, VALUE = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"
PROBE = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); x @ x"


def avoid() -> str:
    """Tries a product in a process of its own, and limits torch in this one if that process dies.

    Call it before the first product. Returns what to tell the reader, empty if all is well."""
    if VARIABLE in os.environ:
        return f"torch runs with {VARIABLE}={os.environ[VARIABLE]}"
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False)
    if probe.returncode == 0:
        return ""
    os.environ[VARIABLE] = VALUE
    return f"torch's bfloat16 products crash on this machine; it runs with {VARIABLE}={VALUE}"
