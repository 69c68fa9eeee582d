"""What training leaves is read as it is; bad input is told in a line."""

import shutil

import pytest

from avar_fast.report.__main__ import main
from avar_fast.report.run_folder import read_run

from .run_folders import write_completions, write_run

LOSSES = [{"loss": 2.0, "mfu": None}, {"loss": 1.5, "mfu": None}]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs" / "agto", LOSSES)


def error_of(*arguments):
    """The one line with which the program ends."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    said = str(end.value.code)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1, said
    return said


def test_a_run_is_read(run):
    read = read_run("a", run)
    assert [(line["step"], line["loss"], line["mfu"]) for line in read.log] == [
        (1, 2.0, None),
        (2, 1.5, None),
    ]
    assert read.settings["optim.lr"] == 1e-3
    assert read.settings["agto.enabled"] is True
    assert (read.stage, read.gate, read.notes) == ("sft", None, [])
    assert not list(read.completions())


@pytest.mark.parametrize(("correct_by", "gate"), [("null", "exact"), ("format", "format")])
def test_the_reward_that_tells_right_answers(tmp_path, correct_by, gate):
    rewards = "grpo.rewards={visual: 0.3, exact: 1.0, format: 0.1}"
    overrides = [rewards, f"grpo.correct_by={correct_by}"]
    run = write_run(tmp_path / "run", LOSSES, "lab-grpo-vars", overrides)
    assert read_run("a", run).gate == gate


def test_no_such_folder(tmp_path):
    said = error_of(tmp_path / "gone", "--out", tmp_path / "p.html")
    assert f"{tmp_path / 'gone'} does not exist" in said


def test_a_folder_of_runs_is_none(run, tmp_path):
    write_run(tmp_path / "runs" / "sft", LOSSES)
    said = error_of(run.parent, "--out", tmp_path / "p.html")
    assert "RUN must be the folder of a training run" in said
    assert "Give one of the runs in it: agto, sft." in said


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "other").mkdir()
    said = error_of(tmp_path / "other", "--out", tmp_path / "p.html")
    assert "with recipe.yaml and log.jsonl" in said


def test_a_checkpoint_is_no_run(run, tmp_path):
    saved = run / "checkpoints" / "step-000002"
    saved.mkdir(parents=True)
    shutil.copy(run / "recipe.yaml", saved)
    (saved / "manifest.json").write_text("{}")
    (run / "latest").symlink_to(saved.relative_to(run))
    for path in (saved, run / "latest"):
        said = error_of(path, "--out", tmp_path / "p.html")
        assert f"is a checkpoint. Give the folder of its run, {run}." in said
    said = error_of(saved.parent, "--out", tmp_path / "p.html")
    assert f"is where its checkpoints are. Give the folder of the run, {run}." in said
    (run / "recipe.yaml").unlink()
    said = error_of(run, "--out", tmp_path / "p.html")
    assert "is one without recipe.yaml. Copy it from a checkpoint of the run." in said


def test_completions_that_are_gone_are_told(tmp_path, capsys):
    run = write_run(tmp_path / "run", LOSSES, "lab-grpo-vars")
    main([str(run), "--out", str(tmp_path / "p.html")])
    note = f"{run / 'completions.jsonl'} does not exist; the page shows no completions."
    assert note in capsys.readouterr().err
    assert note in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize("there", [True, False])
def test_a_run_without_a_log_yet(run, tmp_path, there):
    (run / "log.jsonl").unlink()
    if there:
        (run / "log.jsonl").touch()
    said = error_of(run, "--out", tmp_path / "p.html")
    assert f"{run / 'log.jsonl'} has none yet" in said


@pytest.mark.parametrize("damaged", ['{"step": 2, "lo', "[1]", '{"loss": 1}', "\x00\x00"])
def test_a_damaged_line_of_the_log(run, tmp_path, damaged):
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([lines[0], damaged, lines[1]]) + "\n")
    said = error_of(run, "--out", tmp_path / "p.html")
    assert f"{run / 'log.jsonl'} line 2 must be a JSON object with step; got" in said
    assert not (tmp_path / "p.html").exists()


def test_a_damaged_completion(run, tmp_path):
    (run / "completions.jsonl").write_text('{"step": 1, "completion": "x"}\n')
    said = error_of(run, "--out", tmp_path / "p.html")
    assert f"{run / 'completions.jsonl'} line 1 must be a JSON object with step, row" in said


@pytest.mark.parametrize("content", [b"stage: [\n", b"", b"\xff\xfe\x00", b"- a\n"])
def test_a_damaged_recipe(run, tmp_path, content):
    (run / "recipe.yaml").write_bytes(content)
    said = error_of(run, "--out", tmp_path / "p.html")
    assert f"{run / 'recipe.yaml'} must be the recipe that training wrote" in said


def test_a_line_that_is_being_written_is_left_out_and_told(run, tmp_path, capsys):
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 1.2')
    write_completions(run, [(1, "row 0", "<answer>2</answer>", 3, {"exact": 1.0})])
    main([str(run), "--out", str(tmp_path / "p.html")])
    note = f"{run / 'log.jsonl'}: the last line is incomplete and left out"
    assert note in capsys.readouterr().err
    page = (tmp_path / "p.html").read_text()
    assert note in page
    assert "2 of 3" in page


def test_two_runs_of_one_name(run, tmp_path, capsys):
    other = write_run(tmp_path / "more" / "agto", LOSSES)
    said = error_of(run, other, "--out", tmp_path / "p.html")
    assert f"{run} and {other} are both 'agto'. Write NAME=FOLDER to name one." in said
    main([str(run), f"b={other}", "--out", str(tmp_path / "p.html")])
    assert "Training runs: agto, b" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize("text", ["=runs", "name="])
def test_half_a_name(tmp_path, text):
    assert "must be FOLDER or NAME=FOLDER" in error_of(text, "--out", tmp_path / "p.html")


def test_out_must_be_a_page(run, tmp_path):
    said = error_of(run, "--out", tmp_path)
    assert f"--out must be an HTML file; {tmp_path} is a folder." in said
    log = (run / "log.jsonl").read_text()
    said = error_of(run, "--out", run / "log.jsonl")
    assert f"--out must end in .html; got {run / 'log.jsonl'}. Use --out {run / 'log.html'}" in said
    said = error_of(run, "--out", run / "log.jsonl" / "more" / "p.html")
    assert f"{run / 'log.jsonl'} is a file." in said
    assert (run / "log.jsonl").read_text() == log


def test_too_many_runs(run, tmp_path):
    names = [f"run{i}={run}" for i in range(25)]
    assert "at most 24 runs" in error_of(*names, "--out", tmp_path / "p.html")
