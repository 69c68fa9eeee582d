"""Missing packages: the table is that of pyproject.toml, and every way to miss one is a line."""

import importlib
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from avar_fast import extras
from avar_fast.extras import EXTRAS, INCLUDED, PARTS, MissingPackageError, lack_of, needs
from avar_fast.lab.model import save_base

ROOT = Path(__file__).parent.parent
OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(autouse=True)
def same_hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def names(requirements):
    return {re.match(r"[\w-]+", line)[0] for line in requirements}  # pyright: ignore


def test_the_table_is_that_of_the_metadata():
    for extra, lines in OPTIONAL.items():
        if extra == "all":
            continue
        added = names(lines) - {"avar-fast"}
        included = {x for line in lines for x in re.findall(r"avar-fast\[([\w,]+)\]", line)}
        if extra == "dev":
            assert set(EXTRAS[extra]) <= added
            continue
        assert set(EXTRAS[extra]) == added, extra
        assert ",".join(INCLUDED.get(extra, ())) == ",".join(sorted(included, reverse=True)), extra
    assert set(EXTRAS) == set(OPTIONAL) - {"all"}


def test_parts_exist():
    for part, wanted in PARTS.items():
        assert importlib.util.find_spec(part), part
        assert set(wanted) <= set(EXTRAS)


def test_every_part_that_names_its_extras_is_in_the_table():
    """A study that was not ended with a KeyError instead of the remedy."""
    used = {
        part
        for folder in ("avar_fast", "bench")
        for path in (ROOT / folder).rglob("*.py")
        for part in re.findall(r'\bneeds\("([^"]+)"\)', path.read_text())
    }
    assert "avar_fast.lab.demo" in used
    assert used <= set(PARTS)


@pytest.mark.parametrize("package", ["scikit-learn", "pyyaml", "pillow", "math-verify", "peft"])
def test_packages_are_found_by_the_names_of_their_modules(package):
    assert lack_of(package, "x") == ""
    importlib.import_module(extras.module_of(package))


def told(call, *arguments):
    with pytest.raises(MissingPackageError) as caught:
        call(*arguments)
    return str(caught.value)


def test_another_missing_module_stays_as_it_is():
    with pytest.raises(ModuleNotFoundError) as caught, needs("avar_fast.train"):
        importlib.import_module("no_such_module")
    assert not isinstance(caught.value, MissingPackageError)


def test_the_outermost_part_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError) as caught, needs("avar_fast.studies"):  # noqa: SIM117
        with needs("avar_fast.attention"):
            importlib.import_module("transformers")
    assert str(caught.value) == (
        "avar_fast.studies needs the package transformers, which is not installed. Use: pip install"
        ' "avar-fast[eval,report]"'
    )


def test_the_error_is_one_line_on_stderr(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: seen.append(error))
    monkeypatch.setitem(sys.modules, "wandb", None)
    for _ in range(2):  # the second time the hook is there
        with pytest.raises(MissingPackageError) as caught, needs("avar_fast.train"):
            importlib.import_module("wandb")
    error = caught.value
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == (
        "error: avar_fast.train needs the package wandb, which is not installed. Use: pip install"
        " wandb\n"
    )
    other = ValueError("x")
    sys.excepthook(ValueError, other, None)
    assert seen == [(ValueError, other, None)]


@pytest.mark.parametrize(
    ("package", "arguments"),
    [("deepspeed", []), ("peft", ["lora.enabled=true", "--dry-run"])],
)
def test_training_without_a_package(monkeypatch, tmp_path, package, arguments):
    """Where the package is imported long after the start."""
    from avar_fast.train.__main__ import main

    model = save_base(tmp_path / "model", seed=0)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"problem": "1 + 1?", "answer": "2"}) + "\n")
    monkeypatch.setitem(sys.modules, package, None)
    recipe = [str(ROOT / "configs" / "lab-sft.yaml"), f"train.output_dir={tmp_path / 'run'}"]
    said = told(main, [*recipe, f"model.path={model}", f"data.path={rows}", *arguments])
    assert said == (
        f"avar_fast.train needs the package {package}, which is not installed. Use: pip install"
        ' "avar-fast[train]"'
    )


def test_evaluation_without_matplotlib(monkeypatch, tmp_path):
    from avar_fast.evaluate.__main__ import main

    for name in [m for m in sys.modules if m.startswith(("avar_fast.report", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "avar_fast.evaluate.page", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = told(main, ["page", "r.json", "--out", str(tmp_path / "page.html")])
    assert said.endswith('package matplotlib, which is not installed. Use: pip install "avar'
                         '-fast[report]"')  # fmt: skip


def test_the_lab_without_scikit_learn(monkeypatch, tmp_path):
    from avar_fast.lab import digits
    from avar_fast.lab.__main__ import main

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for value in vars(digits).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    arguments = ["data", "--out", str(tmp_path), "--rows", "2", "--split", "train", "--seed", "0"]
    assert told(main, arguments).endswith('Use: pip install "avar-fast[lab]"')
