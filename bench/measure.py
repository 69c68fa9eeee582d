"""Timing, memory, the machine's roofline, and the table rows that record them."""

import csv
import ctypes
import datetime
import functools
import gc
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .shapes import DEVICE

RESULTS = Path(__file__).parent / "results"
FIELDS = (
    "op", "provider", "mode", "shape", "length", "dtype", "metric", "unit", "p20", "p50", "p80",
    "roofline_percent", "device", "threads", "torch", "triton", "commit", "date",
)  # fmt: skip


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """p20, p50, p80."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return fifths[0], statistics.median(values), fifths[3]


@functools.cache
def peak_flops(dtype: torch.dtype) -> float:
    """FLOP/s of the best matrix product measured here, the limit of anything made of products.

    On a CPU the faster of ``dtype`` and float32 counts: without fast half precision, a kernel may
    convert to float32.
    """
    size = 8192 if DEVICE == "cuda" else 1536
    best = 0.0
    for kind in {dtype, torch.float32} if DEVICE == "cpu" else {dtype}:
        a = torch.randn(size, size, device=DEVICE).to(kind)
        for _ in range(8):
            synchronize()
            start = time.perf_counter()
            torch.matmul(a, a)
            synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


@functools.cache
def copy_bandwidth() -> float:
    """Bytes per second of the best copy measured here; reading and writing both count."""
    x = torch.empty(1 << 28 if DEVICE == "cuda" else 1 << 26, device=DEVICE).fill_(1.0)
    y = torch.empty_like(x)
    best = 0.0
    for _ in range(8):
        synchronize()
        start = time.perf_counter()
        y.copy_(x)
        synchronize()
        best = max(best, 2 * x.nbytes / (time.perf_counter() - start))
    return best


def extra_memory_mib(run: Callable[[], object]) -> float:
    """Peak memory of a call above what was there before."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - base) / 2**20
    gc.collect()
    ctypes.CDLL(None).malloc_trim(
        0
    )  # freed memory that malloc keeps would be used again, uncounted
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    base = _status_kib("VmRSS")
    run()
    return max(_status_kib("VmHWM") - base, 0) / 1024


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


@functools.cache
def machine() -> dict[str, object]:
    """The columns that say where and when a row was measured."""
    device = platform.processor() or platform.machine()
    if DEVICE == "cuda":
        device = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        device = names[0] if names else device
    try:
        import triton

        triton_version = triton.__version__
    except ImportError:
        triton_version = ""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
        ).stdout.strip()  # fmt: skip
    except FileNotFoundError:  # git is not installed
        commit = ""
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": triton_version,
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


class Table:
    """One CSV file of a suite; a new run replaces the rows of the same machine and case."""

    KEY = ("op", "provider", "mode", "shape", "length", "dtype", "metric", "device", "threads")

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.csv"
        self.rows: dict[tuple, dict] = {}
        if self.path.is_file():
            with self.path.open(newline="") as file:
                for row in csv.DictReader(file):
                    self.rows[tuple(row[k] for k in self.KEY)] = row

    def add(
        self, values: tuple[float, float, float], roofline: float | None, **case: object
    ) -> None:
        row = case | machine() | dict(zip(("p20", "p50", "p80"), map(_short, values), strict=True))
        row["roofline_percent"] = "" if roofline is None else _short(roofline)
        self.rows[tuple(str(row[k]) for k in self.KEY)] = row

    def write(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows[key] for key in sorted(self.rows))


def _short(value: float) -> str:
    return f"{value:.4g}"
