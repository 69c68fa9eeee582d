"""The first hour on a GPU, rehearsed on the kernels of the CPU."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "environment", "device_tests", "sanitizer", "attention", "tile_sweep", "decoding",
    "model_steps", "training",
)  # fmt: skip
# What a machine lent for an hour may lack.
ABSENT = (
    "accelerate", "datasets", "deepspeed", "liger_kernel", "math_verify", "openai", "peft", "PIL",
    "sklearn",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables of a process that has a checkout, and none of the packages above."""
    site = tmp_path_factory.mktemp("site")
    names = ", ".join(map(repr, ABSENT))
    (site / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys(({names},)))\n"
    )
    paths = [str(site), str(ROOT), str(ROOT / "kernels")]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return variables | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def first_hour(folder, environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench.first_hour", "--dry", "--out", str(folder), *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def status(folder, part):
    return json.loads((folder / f"{part}.json").read_text())["status"]


def rows(folder, part):
    with (folder / f"{part}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def report(tmp_path_factory, environment):
    """The folder of a whole rehearsal."""
    folder = tmp_path_factory.mktemp("first-hour")
    done = first_hour(folder, environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_every_part_runs_without_the_trainers_packages(report):
    assert {part: status(report, part) for part in PARTS} == dict.fromkeys(
        PARTS, "passed"
    ) | {"training": "skipped"}  # fmt: skip
    assert "deepspeed" in json.loads((report / "training.json").read_text())["message"]
    outcomes = {row["outcome"] for row in rows(report, "device_tests")}
    assert outcomes <= {"passed", "skipped"}
    assert "passed" in outcomes
    providers = {row["provider"] for row in rows(report, "attention")}
    assert {"avar, types", "avar, no types", "sdpa_without_mass"} <= providers
    assert all(float(row["ms"]) > 0 for row in rows(report, "decoding"))
    assert {row["kind"] for row in rows(report, "tile_sweep")} == {"forward", "dq", "dkdv"}
    assert "forward  typed" in (report / "tiles.txt").read_text()
    page = (report / "report.md").read_text()
    assert "say nothing about a GPU" in page
    for part in PARTS:
        assert f"## {part}:" in page


def test_a_part_that_was_stopped_goes_on_where_it_stopped(report, environment):
    """Rows of an earlier start are kept, also where the last line was written in part."""
    lines = (report / "tile_sweep.jsonl").read_text().splitlines()
    kept = lines[: len(lines) // 2]
    (report / "tile_sweep.jsonl").write_text("\n".join(kept) + '\n{"kind": "dq", "inp')
    stopped = {"status": "unfinished", "message": "", "seconds": 1}
    (report / "tile_sweep.json").write_text(json.dumps(stopped))
    decoding = (report / "decoding.jsonl").read_bytes()
    done = first_hour(report, environment, "--parts", "tile_sweep", "decoding")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "decoding: passed before" in done.stdout
    assert (report / "decoding.jsonl").read_bytes() == decoding
    after = (report / "tile_sweep.jsonl").read_text().splitlines()
    assert after[: len(kept)] == kept
    assert len(after) == len(lines)


def test_a_part_beyond_its_time_ends_alone(tmp_path, environment):
    """Six milliseconds: less than any interpreter needs to start. (1.2 s was enough for a part.)"""
    done = first_hour(
        tmp_path, environment, "--minutes", "0.0001", "--parts", "environment", "decoding"
    )
    assert done.returncode != 0
    assert "same command again" in done.stderr
    assert {status(tmp_path, part) for part in ("environment", "decoding")} == {"unfinished"}
    assert "stopped after 0.0001 minutes" in (tmp_path / "report.md").read_text()


def test_a_report_of_another_machine_is_refused(tmp_path, environment):
    (tmp_path / "machine.json").write_text(json.dumps({"device": "another"}))
    done = first_hour(tmp_path, environment, "--parts", "decoding")
    assert done.returncode != 0
    assert "Give another --out" in done.stderr
    assert not (tmp_path / "decoding.json").exists()


def test_the_trainer_runs_both_stages(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = first_hour(tmp_path, environment, "--parts", "training")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert [row["stage"] for row in rows(tmp_path, "training")] == ["sft", "grpo"]


def test_without_a_gpu_only_a_rehearsal_starts(tmp_path, environment):
    """It once reported the GPU tests as passed, all of them skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.first_hour", "--out", str(tmp_path / "report")],
        cwd=ROOT, env=environment | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--dry" in done.stderr
    assert not (tmp_path / "report").exists()


def test_a_program_that_dies_under_a_sanitizer_counts_as_an_error(tmp_path):
    from bench.first_hour import sanitizer
    from bench.first_hour.part_report import PartReport

    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho '========= ERROR SUMMARY: 0 errors'\nexit 1\n")
    tool.chmod(0o755)
    _, errors = sanitizer._run([str(tool)], PartReport(tmp_path, "sanitizer", dry=False))
    assert errors == 1


def test_the_sweep_keeps_no_row_of_a_call_that_fails_for_another_reason(tmp_path, monkeypatch):
    """After a fault of the device every call fails; such rows once stood in the report for good."""
    from bench.first_hour import tile_sweep
    from bench.first_hour.part_report import PartReport

    def fails(calls, rounds):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(tile_sweep, "milliseconds_in_turns", fails)
    report = PartReport(tmp_path, "tile_sweep", dry=True)
    with pytest.raises(RuntimeError, match="illegal"):
        tile_sweep.run(report)
    assert report.rows == []


def test_a_test_file_that_failed_runs_again_and_its_old_rows_are_gone(tmp_path, monkeypatch):
    from bench.first_hour import device_tests
    from bench.first_hour.part_report import PartReport

    report = PartReport(tmp_path, "device_tests", dry=True)
    (name,) = device_tests.REHEARSED
    report.add(file=name, test="a", outcome="failed", message="")
    monkeypatch.setattr(
        device_tests, "_outcomes",
        lambda file, results, dry: [{"file": file.name, "test": "a", "outcome": "passed"}],
    )  # fmt: skip
    device_tests.run(report)
    again = PartReport(tmp_path, "device_tests", dry=True)
    assert [row["outcome"] for row in again.rows] == ["passed"]
