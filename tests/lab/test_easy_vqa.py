"""examples/easy_vqa.py, whole, on a package of a few invented questions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "easy_vqa.py"
PACKAGE = """
from pathlib import Path
HERE = Path(__file__).parent
QUESTIONS = (["what color is it?", "is it red?"] * 20, ["red", "yes", "blue", "no"] * 10,
             [0, 0, 1, 1] * 10)
get_train_questions = get_test_questions = lambda: QUESTIONS
get_train_image_paths = get_test_image_paths = lambda: {n: HERE / f"{n}.png" for n in range(2)}
"""


@pytest.fixture
def site(tmp_path):
    package = tmp_path / "site" / "easy_vqa"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    for number, color in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), color).save(package / f"{number}.png")
    return package.parent


def run(*arguments, path):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), *sys.path])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_script_trains_evaluates_and_names_the_commonest_answers(site, tmp_path):
    out = tmp_path / "out"
    done = run(out, "--steps", 1, "--questions", 8, path=site)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "test.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["red", "yes", "blue", "no"] * 2
    assert rows[0]["messages"][0]["content"] == "<image>What color is it?"
    printed = dict(line.rsplit(None, 1) for line in done.stdout.splitlines()[-3:])
    result = json.loads((out / "result.json").read_text())["benchmarks"]["rows"]
    assert float(printed["model"]) == pytest.approx(result["score"], abs=5e-4)
    assert float(printed["commonest"]) == 0.25
    assert float(printed["commonest by question"]) == 0.5


def test_without_the_package_the_script_says_so(tmp_path):
    """Also where the environment has the package: it is hidden by one that cannot be found."""
    (tmp_path / "easy_vqa.py").write_text("raise ModuleNotFoundError\n")
    done = run(tmp_path / "out", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: easy-vqa is not installed; run pip install easy-vqa\n"
