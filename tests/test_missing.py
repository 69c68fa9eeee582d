"""What a fresh clone has not: every program says it in a line, with what makes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avar_fast.data.__main__ import main as check_data
from avar_fast.evaluate.__main__ import main as evaluate
from avar_fast.lab.model import save_base
from avar_fast.missing import how_to_make
from avar_fast.studies.__main__ import main as vas
from avar_fast.synthesize.__main__ import main as synthesize
from avar_fast.train.__main__ import main as train

ROOT = Path(__file__).parent.parent
ROWS = '{"messages": [{"role": "user", "content": "1 + 1?"}], "answer": "2"}\n'


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the recipes and nothing that they name."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, call):
    """The one line of stderr, or of the exit."""
    try:
        assert call() != 0
        said = capsys.readouterr().err.strip()
    except SystemExit as end:
        said = str(end.code)
    assert len(said.splitlines()) == 1, said
    return said


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            "lab-walk-sft-agto",
            "runs/demo/base/latest is neither. The demo makes it: python -m avar",
        ),
        (
            "lab-walk-base",
            "runs/demo/init is neither. The demo makes it: python -m avar_fast.lab.demo",
        ),
        (
            "lab-sft",
            "runs/vas-study/base/latest is neither. The study of the score makes it: python -m"
            " avar_fast.lab.vas_study",
        ),
        (
            "lab-grpo",
            "runs/study/seed-0/agto/latest is neither. The shortcut study makes it: python -m"
            " avar_fast.lab.study --out runs/study",
        ),
        ("qwen2.5-vl-7b-grpo-vars", "A run with train.output_dir=runs/sft-agto leaves it there"),
    ],
)
def test_training_names_the_model(clone, capsys, recipe, words, dry):
    """A dry run ended in a traceback of transformers'."""
    arguments = [f"configs/{recipe}.yaml", *["--dry-run"] * dry]
    assert words in told(capsys, lambda: train(arguments))


def test_training_as_a_user_starts_it(clone):
    command = [sys.executable, "-m", "avar_fast.train", "configs/lab-sft-agto.yaml", "--dry-run"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: a model must be a folder")


def test_the_other_programs_name_it_too(clone, capsys):
    gone = "runs/demo/agto/latest"
    sft = "configs/lab-walk-sft.yaml"
    makes = "The demo makes it: python -m avar_fast.lab.demo"
    assert makes in told(capsys, lambda: check_data(["check", sft]))
    save_base(clone / "model", seed=0)
    capsys.readouterr()
    data = told(capsys, lambda: check_data(["check", sft, "model.path=model"]))
    assert "data.path must be an existing file; runs/demo/data/hinted/train.jsonl" in data
    assert makes in data
    out = ["--data", "rows.jsonl", "--out"]
    assert makes in told(capsys, lambda: evaluate([gone, *out, "r.json"]))
    assert makes in told(capsys, lambda: vas(["score", gone, *out, "v"]))
    said = told(capsys, lambda: synthesize(["configs/lab-vard.yaml", "--dry-run"]))
    assert "python -m avar_fast.lab data --out runs/vard-lab/data" in said


def test_a_checkpoint_by_its_step_and_a_path_of_ones_own():
    assert "train.output_dir=a/b " in how_to_make("a/b/checkpoints/step-000200")
    assert how_to_make("my/folder") == ""
