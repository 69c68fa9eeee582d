"""Keeps torch's bfloat16 products from crashing where a virtual machine shows AMX without the sizes
of its tiles (CPUID leaf 0x1D): they then run as on a machine without AMX."""

import os
import subprocess
import sys

VARIABLE, VALUE = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"
PROBE = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); x @ x"


def avoid() -> str:
    """Tries a product in a process of its own; if that dies, limits torch in this one, which must
    not have multiplied yet. Returns what to tell the reader, empty if all is well."""
    if VARIABLE in os.environ:
        return f"torch runs with {VARIABLE}={os.environ[VARIABLE]}"
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False)
    if probe.returncode == 0:
        return ""
    os.environ[VARIABLE] = VALUE
    return f"torch's bfloat16 products crash on this machine; it runs with {VARIABLE}={VALUE}"
