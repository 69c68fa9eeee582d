"""What the machine has: device, clocks, packages, and the time of the first call."""

import importlib.metadata
import platform
import shutil
import subprocess
import time

import torch
from avar_kernels import available_backends, visual_attn_func

from ..shapes import DEVICE, make_inputs
from .part_report import PartReport

PACKAGES = (
    "torch", "triton", "transformers", "numpy", "pytest", "deepspeed", "datasets", "peft",
    "liger-kernel", "flash-attn", "flash-attn-3", "flash-attn-4", "flashinfer-python", "vllm",
)  # fmt: skip
CLOCKS = "name,driver_version,clocks.max.sm,clocks.sm,clocks.mem,power.limit,temperature.gpu"


def run(report: PartReport) -> None:
    """One row per fact."""
    report.keep([])
    report.add(fact="python", value=platform.python_version())
    for package in PACKAGES:
        try:
            report.add(fact=package, value=importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            report.add(fact=package, value="not installed")
    for name, status in available_backends().items():
        report.add(fact=f"backend {name}", value="runs" if status else status.reason)
    if DEVICE == "cuda":
        _describe_device(report)
    inputs = make_inputs(2048 if DEVICE == "cuda" else 128, torch.bfloat16)
    for call in ("first", "second"):
        start = time.perf_counter()
        result = visual_attn_func(inputs.q, inputs.k, inputs.v, inputs.types, causal=True)
        torch.autograd.grad(result.out.float().sum() + result.mass.sum(), inputs[:3])
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds = round(time.perf_counter() - start, 3)
        report.add(fact=f"seconds of the {call} forward and backward", value=seconds)


def _describe_device(report: PartReport) -> None:
    properties = torch.cuda.get_device_properties(0)
    report.add(fact="device", value=properties.name)
    report.add(fact="devices", value=torch.cuda.device_count())
    report.add(fact="capability", value=f"{properties.major}.{properties.minor}")
    report.add(fact="multiprocessors", value=properties.multi_processor_count)
    report.add(fact="memory GiB", value=round(properties.total_memory / 2**30, 1))
    report.add(fact="CUDA of torch", value=torch.version.cuda or torch.version.hip)
    if tool := shutil.which("nvidia-smi"):
        done = subprocess.run(
            [tool, f"--query-gpu={CLOCKS}", "--format=csv,noheader"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        for name, value in zip(CLOCKS.split(","), done.stdout.split(","), strict=False):
            report.add(fact=name, value=value.strip())
