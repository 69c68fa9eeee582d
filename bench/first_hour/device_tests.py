"""The GPU tier of the tests, file by file."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .part_report import PartReport

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "gpu"
REHEARSED = ("test_modes.py",)  # of a dry run


def run(report: PartReport) -> None:
    """One row per test; a file whose tests all passed is not run again.

    Raises:
        RuntimeError: a test failed, a file could not be collected, or no test ran.
    """
    files = [TESTS / name for name in REHEARSED] if report.dry else sorted(TESTS.glob("test_*.py"))
    sound = {row["file"] for row in report.rows}
    sound -= {row["file"] for row in report.rows if row["outcome"] not in ("passed", "skipped")}
    report.keep([row for row in report.rows if row["file"] in sound])
    for file in files:
        if file.name in sound:
            continue
        for row in _outcomes(file, report.folder / f"{file.stem}.xml", report.dry):
            report.add(**row)
    failed = [row["test"] for row in report.rows if row["outcome"] in ("failed", "error")]
    if failed:
        raise RuntimeError(f"{len(failed)} tests failed: {', '.join(failed)}")
    if all(row["outcome"] == "skipped" for row in report.rows):
        raise RuntimeError("every test was skipped; see the messages of its rows")


def _outcomes(file: Path, results: Path, dry: bool) -> list[dict[str, object]]:
    results.unlink(missing_ok=True)
    environment = os.environ | ({"AVAR_TEST_DEVICE": "cpu"} if dry else {})
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", file, "-m", "gpu", "-W", "default", "-q",
            f"--junitxml={results}",
        ],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (results.with_suffix(".log")).write_text(done.stdout + done.stderr)
    if not results.is_file():
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        return [{"file": file.name, "test": file.name, "outcome": "error", "message": str(last)}]
    return [
        {
            "file": file.name,
            "test": case.get("name") or file.name,
            "seconds": round(float(case.get("time", 0)), 2),
            **_outcome(case),
        }
        for case in ElementTree.parse(results).iter("testcase")
    ]


def _outcome(case: ElementTree.Element) -> dict[str, str]:
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            outcome = {"failure": "failed"}.get(child.tag, child.tag)
            return {"outcome": outcome, "message": (child.get("message") or "")[:300]}
    return {"outcome": "passed", "message": ""}
