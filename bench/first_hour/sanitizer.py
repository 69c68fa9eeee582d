"""A selection of launches under compute-sanitizer: stray accesses, races, uninitialized memory."""

import os
import re
import shutil
import subprocess
import sys

from .device_tests import ROOT
from .part_report import PartReport, SkipPartError

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PROGRAM = """
import torch
from avar_kernels import (
    attn_received, plan_keys, visual_attn_func, visual_attn_varlen_func, visual_attn_with_kvcache)
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
for length, dim in ((300, 128), (200, 80)):
    q = torch.randn(1, length, 4, dim).to(device, torch.bfloat16).requires_grad_()
    k, v = (torch.randn(1, length, 2, dim).to(device, torch.bfloat16).requires_grad_()
            for _ in range(2))
    bias = torch.randn(4, 3).to(device).requires_grad_()
    types = torch.zeros(1, length, dtype=torch.int32)
    types[:, 20:length // 2], types[:, -7:] = 1, -1
    types = types.to(device)
    for tables in ({}, {"type_bias": bias}):
        result = visual_attn_func(q, k, v, plan_keys(types), causal=True, **tables)
        loss = result.out.float().sum() + result.mass[..., 1].sum() + result.lse.sum()
        torch.autograd.grad(loss, [q, k, v, *tables.values()])
    offsets = torch.tensor([0, 130, 130, length - 3], dtype=torch.int32, device=device)
    lengths = (offsets, offsets, 170, 170)
    packed = visual_attn_varlen_func(q[0], k[0], v[0], *lengths, types[0], causal=True)
    torch.autograd.grad(packed.out.float().sum(), [q, k, v])
    with torch.no_grad():
        visual_attn_with_kvcache(q[:, :1], k, v, types)
        attn_received(q, k, result.lse, torch.ones(1, length, device=device), types, causal=True)
if device == "cuda":
    torch.cuda.synchronize()
print("finished")
"""


def run(report: PartReport) -> None:
    """One row per tool.

    Raises:
        SkipPartError: compute-sanitizer is not installed.
        RuntimeError: a tool reports errors, or the program does not finish.
    """
    if report.dry:
        report.add(tool="none", errors=_run([], report)[1])
        return
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.access(sanitizer, os.X_OK):
        raise SkipPartError("compute-sanitizer is not on PATH nor in /usr/local/cuda/bin")
    _run([], report)  # compiles the kernels outside the tools
    for tool in TOOLS:
        if report.has(tool=tool, errors=0):
            continue
        output, errors = _run([sanitizer, "--tool", tool], report)
        report.add(tool=tool, errors=errors)
        (report.folder / f"sanitizer-{tool}.log").write_text(output)
    latest = {row["tool"]: row["errors"] for row in report.rows}
    if any(latest.values()):
        raise RuntimeError(f"errors by tool: {latest}; see sanitizer-*.log")


def _run(command: list[str], report: PartReport) -> tuple[str, int]:
    """Output and number of errors; a program that does not finish counts as one."""
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM],
        cwd=ROOT, capture_output=True, text=True, check=False,
        # Each allocation is its own, so that an access beyond it is seen.
        env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )  # fmt: skip
    output = done.stdout + done.stderr
    if not command and "finished" not in output:
        raise RuntimeError(f"the program failed without a tool: {output[-1500:]}")
    summary = re.search(r"ERROR SUMMARY: (\d+) error", output)
    hazards = re.search(r"RACECHECK SUMMARY: (\d+) hazard", output)
    found = summary or hazards
    died = "finished" not in output or done.returncode != 0
    return output, max(int(found[1]) if found else 0, int(died))
