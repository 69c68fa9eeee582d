"""Runs transformers' own model tests with "avar" in the text towers.

    git clone --branch v5.17.0 --depth 1 https://github.com/huggingface/transformers
    python -m tests.upstream.transformers_models transformers

Every family's tests run twice: as they are, and with "avar" as the default attention of its text
tower. What passes in the first run must pass in the second. The tests run on the checkout's own
transformers. Tests that need the Hub or a GPU fail or are skipped in both. The package
parameterized is needed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from avar_fast.tables import markdown

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "avar_by_default"  # under this name, as the checkout has a package tests of its own
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
KNOWN = {
    "test_custom_4d_attention_mask": '"avar" refuses masks of four dimensions',
    "test_generate_compile_model_forward_fullgraph": "the number of keys grows with every token",
    "test_sdpa_can_dispatch_composite_models": 'asks for "sdpa" where nothing is chosen',
}
"""Tests that fail with "avar", and why."""


def run(checkout: Path, family: str, *options: str) -> dict[str, str]:
    """{test: "" where it passed, else its message} of all tests that were not skipped."""
    module = checkout.resolve() / "tests" / "models" / family / f"test_modeling_{family}.py"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(module), "-q", f"--junitxml={report}"]
        own, here = checkout.resolve() / "src", Path(__file__).resolve().parent
        path = [own, ROOT, ROOT / "kernels", here, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "HF_HUB_OFFLINE": "1",
        }
        subprocess.run(
            [*command, "-p", "no:cacheprovider", "-W", "ignore", *options],
            cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if not report.is_file():
            sys.exit(f"error: pytest did not run {module}; run it by hand to see why.")
        cases = ElementTree.parse(report).iter("testcase")
    outcomes = {}
    for case in cases:
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if case.find("skipped") is None:
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            outcomes[name] = "" if bad is None else (bad.get("message") or "failed")
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="of transformers")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    options = parser.parse_args()
    lines, lost = [["family", "pass as they are", 'pass with "avar"', "known"]], []
    for family in options.families:
        before = run(options.checkout, family)
        after = run(options.checkout, family, "-p", PLUGIN)
        passed = [name for name, message in before.items() if not message]
        if not passed:
            sys.exit(f"error: no test of {family} passes as it is: {[*before.values()][:1]}")
        failed = [name for name in passed if after.get(name, "not run")]
        known = [name for name in failed if name.rpartition("::")[2] in KNOWN]
        lines.append([family, *map(str, (len(passed), len(passed) - len(failed), len(known)))])
        lost += [f"{family} {name}: {after.get(name)}" for name in failed if name not in known]
        print(f"{family}: {len(passed)} pass, {len(failed)} fail with avar", flush=True)
    print(markdown(lines), *lost, sep="\n")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
