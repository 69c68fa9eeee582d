"""The folder of a study: it goes on after any end, belongs to one process, and names what is
damaged."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from avar_fast.lab import runs, study, study_folder
from avar_fast.lab.runs import TrainingRun
from avar_fast.lab.study_command import parse_study, study_parser
from avar_fast.lab.study_folder import enter_folder, only_study, read_whole

MARKER = "a-study.json"
SETTINGS = {"seeds": "own", "phases": [[1, 2.5]]}


def test_a_study_that_was_killed_as_it_began_goes_on(tmp_path):
    (tmp_path / "a-study.partial").write_text('{"se')
    enter_folder(tmp_path, MARKER, SETTINGS)
    assert read_whole(tmp_path / MARKER) == SETTINGS
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


@pytest.mark.parametrize("text", ["", '{"seeds"', "[1]", "\x80"])
def test_damaged_settings_are_one_clear_error(tmp_path, text):
    (tmp_path / MARKER).write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit, match=r"a-study\.json must hold a study's settings; it is dam"):
        enter_folder(tmp_path, MARKER, SETTINGS)


@pytest.mark.parametrize("text", ["", '{"scores"', "[1]", "\x80"])
def test_a_damaged_result_is_named_with_what_to_delete(tmp_path, text):
    (tmp_path / "plain.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit, match=r"plain\.json must hold.*Delete \S*plain\.json, and run"):
        read_whole(tmp_path / "plain.json")
    with pytest.raises(SystemExit, match=rf"Delete {tmp_path}, and run"):
        read_whole(tmp_path / "plain.json", tmp_path)


def test_a_page_of_a_mistyped_folder_makes_none(tmp_path, capsys):
    parser = study_parser("hint_study", None, "hint-study.md", seeds=5)
    with pytest.raises(SystemExit):
        parse_study(parser, ["--out", str(tmp_path / "mistyped"), "--page"])
    assert f"{tmp_path / 'mistyped'} is none. Check --out" in capsys.readouterr().err
    assert not (tmp_path / "mistyped").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit, match="--out must be a folder to write into.*Name another"):
        enter_folder(tmp_path / "file", MARKER, SETTINGS)


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path, monkeypatch):
    enter_folder(tmp_path, MARKER, SETTINGS)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with (
        pytest.raises(SystemExit, match=r"is read-only\. Name another"),
        only_study(tmp_path, MARKER),
    ):
        raise AssertionError("the study ran")


def _enter_here(out):
    with only_study(out, MARKER):
        pass


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path, capfd):
    enter_folder(tmp_path, MARKER, SETTINGS)
    context = multiprocessing.get_context("fork")

    def code_of_another():
        other = context.Process(target=_enter_here, args=(tmp_path,))
        other.start()
        other.join()
        return other.exitcode

    with only_study(tmp_path, MARKER):
        assert code_of_another() == 1
    assert f"another process runs the study in {tmp_path}" in capfd.readouterr().err
    assert code_of_another() == 0


PART = """
import sys
import time
from functools import partial
from pathlib import Path

from avar_fast.lab import processes

def part(path):
    while True:
        with path.open("a") as file:
            file.write(".")
        time.sleep(0.02)

if __name__ == "__main__":
    processes.PRELOADED = ()
    processes.make_all("parts", [partial(part, Path(sys.argv[1]))], jobs=1)
"""


def size_after(path, seconds):
    time.sleep(seconds)
    return path.stat().st_size


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_ends_leaves_no_part_behind(tmp_path, signal_number):
    """A part of a killed study went on training in the folder, beside the study that was started
    again. Ctrl-C reaches the whole group of processes."""
    (tmp_path / "program.py").write_text(PART)
    written = tmp_path / "written"
    program = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(written)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell's command in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not written.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert written.exists()
    if signal_number == signal.SIGKILL:
        program.kill()
    else:
        os.killpg(program.pid, signal_number)
    _, said = program.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while size_after(written, 0.0) != size_after(written, 0.5):
        assert time.monotonic() < deadline, "a part goes on"
    if signal_number == signal.SIGINT:
        assert "error: parts: interrupted." in said
        assert "Traceback" not in said


def test_a_run_by_torchrun_that_sigterm_ended_is_no_result(tmp_path, monkeypatch):
    """The trainer then saves a checkpoint and ends with code 0."""
    run = TrainingRun("sft", "cold start", "lab-sft.yaml", "init", ("train.steps=9",))
    (tmp_path / "sft").mkdir()
    monkeypatch.setattr(runs.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    (tmp_path / "sft" / "log.jsonl").write_text(json.dumps({"step": 4}) + "\n")
    with pytest.raises(SystemExit, match="cold start was stopped at step 4 of 9"):
        runs.train(run, tmp_path, tmp_path, 0)
    (tmp_path / "sft" / "log.jsonl").write_text(json.dumps({"step": 9}) + "\n")
    assert runs.train(run, tmp_path, tmp_path, 0) >= 0


def test_the_shortcut_study_keeps_to_its_settings(tmp_path, monkeypatch):
    study_folder.enter_folder(tmp_path, study.MARKER, study.settings())
    monkeypatch.setattr(study, "NUM_TEST", 7)
    with pytest.raises(SystemExit, match="holds a study with other tests"):
        study.main(["--out", str(tmp_path)])


def test_the_shortcut_study_names_a_damaged_result(tmp_path):
    seed = tmp_path / "seed-0"
    (seed / "base").mkdir(parents=True)
    (seed / "base.json").write_text('{"training": {"accu')
    with pytest.raises(SystemExit, match=r"base\.json must hold.*damaged"):
        study.run_seed(0, seed)
