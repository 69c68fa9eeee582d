"""Runs the parts of the first hour one after the other; see the package's docstring."""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from . import __doc__ as description
from .device_tests import ROOT
from .page import PARTS, write_page
from .part_report import PartReport, SkipPartError


def main() -> None:
    """The whole hour, or one part of it in a process of its own (--only)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.first_hour",
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/first-hour"), help="report folder")
    parser.add_argument("--dry", action="store_true", help="rehearse on the kernels of the CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit of a part")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.only:
        _run_here(options.out, options.only, options.dry)
        return
    if not options.dry and not torch.cuda.is_available():
        parser.exit(1, "torch sees no GPU here: check the driver, or rehearse with --dry\n")
    options.out.mkdir(parents=True, exist_ok=True)
    _refuse_other_machine(options.out, options.dry)
    for name in options.parts:
        if _status(options.out, name) == "passed":
            print(f"{name}: passed before", flush=True)
            continue
        print(f"{name}: {PARTS[name]}", flush=True)
        _run_in_child(options.out, name, options.dry, options.minutes)
        print(f"{name}: {_status(options.out, name)}", flush=True)
        write_page(options.out)
    write_page(options.out)
    print(f"report: {options.out / 'report.md'}")
    if not {_status(options.out, name) for name in options.parts} <= {"passed", "skipped"}:
        sys.exit("not all parts passed; the same command again goes on where they stopped")


def _run_here(folder: Path, name: str, dry: bool) -> None:
    """Runs a part and keeps how it ended."""
    report = PartReport(folder, name, dry)
    start = time.perf_counter()
    status, message = "passed", ""
    try:
        importlib.import_module(f".{name}", __package__).run(report)
    except SkipPartError as reason:
        status, message = "skipped", str(reason)
    except Exception:
        status, message = "failed", traceback.format_exc()
    report.write_csv()
    _keep_status(folder, name, status, message, time.perf_counter() - start)


def _run_in_child(folder: Path, name: str, dry: bool, minutes: float) -> None:
    # A crash of the driver or a hanging kernel ends one part, not the hour.
    _keep_status(folder, name, "failed", "the process died; see its output", 0.0)
    command = [sys.executable, "-m", "bench.first_hour", "--only", name, "--out", str(folder)]
    # A session of its own: what the part has started must not run on beside the next part.
    part = subprocess.Popen(command + ["--dry"] * dry, cwd=ROOT, start_new_session=True)
    try:
        part.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        os.killpg(part.pid, signal.SIGKILL)
        part.wait()
        message = f"stopped after {minutes:g} minutes; its rows so far are kept"
        _keep_status(folder, name, "unfinished", message, 60 * minutes)
        PartReport(folder, name, dry).write_csv()


def _keep_status(folder: Path, name: str, status: str, message: str, seconds: float) -> None:
    result = {"status": status, "message": message, "seconds": round(seconds, 1)}
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1))


def _status(folder: Path, name: str) -> str:
    file = folder / f"{name}.json"
    return json.loads(file.read_text())["status"] if file.is_file() else "not run"


def _refuse_other_machine(folder: Path, dry: bool) -> None:
    """Rows of two machines or two versions of the code must not end up in one report."""
    from ..measure import machine

    known = machine()
    here = {key: str(known[key]) for key in ("device", "torch", "triton", "commit")}
    here["dry"] = str(dry)
    file = folder / "machine.json"
    if file.is_file() and (there := json.loads(file.read_text())) != here:
        sys.exit(f"{folder} holds a report of {there}; this is {here}. Give another --out.")
    file.write_text(json.dumps(here, indent=1))


if __name__ == "__main__":
    main()
