"""The machine's bare rates of multiply-adds, measured from registers: a limit that no kernel can
pass, unlike torch's own products, which reach very different shares of it."""

import ctypes
import functools
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import torch
from avar_kernels import cpu

SOURCE = Path(__file__).with_name("bare_rates.c")
SECONDS, TRIES = 0.05, 7
BYTES_OF_TILES = 18  # the state component that Linux gives a process on request
ARCH_REQ_XCOMP_PERM, SYS_ARCH_PRCTL = 0x1023, 158


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled source; None where there is no compiler or another kind of machine."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bare_rates.so"
        command = ["gcc", "-O3", "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            return None
        loaded = ctypes.CDLL(str(library))
    for name in ("float32_rate", "bfloat16_rate", "tile_rate"):
        function = getattr(loaded, name)
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_int64]
    return loaded


@functools.cache
def bare_flops(dtype: torch.dtype) -> float | None:
    """FLOP/s of all threads of torch together: multiply-adds of float32, or of pairs or tiles of
    bfloat16, whichever the machine has and is fastest. None if it cannot be measured here."""
    library = _library()
    if library is None:
        return None
    names = ["float32_rate"]
    if dtype == torch.bfloat16:
        names.append("bfloat16_rate")
        if "amx" in cpu.instruction_sets():
            names.append("tile_rate")
    return max(_measured(getattr(library, name)) for name in names) or None


def _measured(function: ctypes._CFuncPtr) -> float:  # pyright: ignore[reportAttributeAccessIssue]
    rounds = 1 << 12
    while True:  # as many rounds as take long enough
        start = time.perf_counter()
        if not _run(function, rounds):
            return 0.0
        if time.perf_counter() - start > SECONDS:
            break
        rounds *= 2
    best = 0.0
    for _ in range(TRIES):
        start = time.perf_counter()
        operations = _run(function, rounds)
        best = max(best, operations / (time.perf_counter() - start))
    return best


def _run(function: ctypes._CFuncPtr, rounds: int) -> float:  # pyright: ignore[reportAttributeAccessIssue]
    """Floating-point operations of all threads."""
    done: list[float] = []

    def work() -> None:
        if function.__name__ == "tile_rate":
            ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, BYTES_OF_TILES)
        done.append(function(rounds))

    threads = [threading.Thread(target=work) for _ in range(torch.get_num_threads())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)
