"""The doctor's report and exit code, its ranges, and its child processes."""

import avar_kernels
import pytest

from avar_fast.doctor import __main__ as doctor
from avar_fast.doctor import child
from avar_fast.doctor.machine import MachineState, machine_state
from avar_fast.doctor.packages import SOURCE, PackageState, admits, package_states
from avar_fast.doctor.trials import try_backends, try_imports

from .states import CPU, packages


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (">=2.11,<2.16", ("2.11", "2.11.0", "2.13.0+cpu", "2.15.9rc1"), ("2.10.1", "2.16", "3")),
        (">=5,<6", ("5.0", "5.99.1"), ("4.9", "6.0.0")),
        ("==1.2", ("1.2", "1.2.0"), ("1.2.1",)),
        ("", ("0.1", "9"), ()),
    ],
)
def test_ranges(allowed, inside, outside):
    assert all(admits(allowed, version) for version in inside)
    assert not any(admits(allowed, version) for version in outside)


def test_ranges_come_from_the_source_tree(monkeypatch):
    monkeypatch.setattr("avar_fast.doctor.packages.try_imports", lambda _: {})
    states = package_states()
    assert SOURCE.is_file()
    assert states["torch"].allowed == ">=2.11,<2.16"
    assert states["openai"].allowed == ">=3,<4"
    assert states["accelerate"].allowed == ""


def test_broken_modules_are_named_and_end_nothing(tmp_path, monkeypatch):
    for name, text in {
        "good": "print('noise')\ndef f(): ...\nx = 1",
        "raises": "raise RuntimeError('first line\\nsecond line')",
        "leaves": "import sys; sys.exit('gone')",
        "crashes": "import os; os.abort()",
        "ends": "import os; os._exit(7)",
    }.items():
        (tmp_path / f"of_test_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    tried = try_imports(
        [f"of_test_{name}" for name in ("raises", "crashes", "good", "leaves", "ends", "absent")]
        + ["of_test_good:f", "of_test_good:x", "of_test_good:y"]
    )
    assert {name.removeprefix("of_test_"): error for name, error in tried.items()} == {
        "raises": "RuntimeError: first line",
        "crashes": "ended the process with SIGABRT",
        "good": "",
        "leaves": "SystemExit: gone",
        "ends": "ended the process with exit code 7",
        "absent": "ModuleNotFoundError: No module named 'of_test_absent'",
        "good:f": "",
        "good:x": "TypeError: x of of_test_good cannot be called",
        "good:y": "AttributeError: module 'of_test_good' has no attribute 'y'",
    }


def test_backends_are_called():
    tried = try_backends(["sdpa", "absent"])
    assert tried["sdpa"] == ""
    assert tried["absent"].startswith("ValueError: backend must be None or one of")


@pytest.mark.parametrize("output", ["out", "mass"])
def test_wrong_numbers_are_found(monkeypatch, output):
    true = avar_kernels.visual_attn_func

    def wrong(*arguments, backend, **named):
        result = true(*arguments, backend=backend, **named)
        value = getattr(result, output) * (1.1 if backend == "sdpa" else 1.0)
        return result._replace(**{output: value})

    monkeypatch.setattr(avar_kernels, "visual_attn_func", wrong)
    said = child._error_of("backend sdpa")
    assert said == f"ArithmeticError: {output} differs from that of the backend eager by 10%"
    assert child._error_of("backend eager") == ""


def test_a_backend_that_fails_is_a_trouble(monkeypatch):
    """One that cannot run here, as triton without a GPU, is none."""
    monkeypatch.setattr(
        "avar_fast.doctor.machine.try_backends",
        lambda names: {name: "wrong by 1" if name == "sdpa" else "" for name in names},
    )
    machine = machine_state()
    assert machine.troubles == ("backend sdpa: wrong by 1",)
    assert machine.backends["eager"] == ""
    assert machine.backends["sdpa"] == "wrong by 1"


@pytest.fixture
def run(monkeypatch, capsys):
    """(arguments, machine, packages) -> (exit code, stdout, stderr)"""

    def run(arguments, machine, states):
        monkeypatch.setattr(doctor, "machine_state", lambda: machine)
        monkeypatch.setattr(doctor, "package_states", lambda: states)
        code = doctor.main(arguments)
        return code, *capsys.readouterr()

    return run


def test_a_machine_with_all(run):
    code, out, err = run([], CPU, packages())
    assert (code, err) == (0, "")
    assert out.endswith("The kernels and the trainer run here.\n")
    assert "  triton  no device" in out


def test_what_parts_lack(run):
    code, out, err = run([], CPU, packages("scipy", matplotlib="ImportError: x"))
    assert (code, err) == (0, "")
    (evaluate,) = [line for line in out.splitlines() if line.startswith("  avar_fast.evaluate ")]
    assert evaluate.endswith('not installed: scipy. Use: pip install "avar-fast[eval]"')
    (report,) = [line for line in out.splitlines() if line.startswith("  avar_fast.report ")]
    assert report.endswith("  matplotlib fails to import: ImportError: x")


def test_without_the_trainer_or_torch(run):
    code, _, err = run([], CPU, packages("deepspeed"))
    assert code == 1
    assert err.startswith("error: the trainer does not run: not installed: deepspeed. Use: pip")
    broken = MachineState({}, {}, None, ("OSError: no libcudart",))
    code, _, err = run([], broken, packages())
    assert (code, err) == (1, "error: the kernels do not run: OSError: no libcudart.\n")


def test_versions_outside_the_range(run):
    states = packages() | {"torch": PackageState("torch", "2.10.0", ">=2.11,<2.16", "")}
    code, out, _ = run([], CPU, states)
    assert code == 0
    assert "2.10.0          outside of what was tested; tested: >=2.11,<2.16" in out


def test_recipes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "stage: sft\nmodel: {path: owner/model, dtype: float32}\ndata: {path: no.jsonl}\n"
        f"train: {{output_dir: {tmp_path}/run, steps: 1}}\n"
    )
    code, out, err = run([str(recipe), "lora.enabled=true"], CPU, packages("peft"))
    assert (code, err) == (1, f"error: {recipe} lacks 2 things, see above.\n")
    assert "  missing  lora.enabled needs the package peft, which is not installed." in out
    assert "  missing  data.path must be an existing file; no.jsonl is not\n" in out
    assert "  note     model.path=owner/model is taken as a hub name" in out
    (tmp_path / "rows.jsonl").touch()
    code, out, err = run([str(recipe), f"data.path={tmp_path}/rows.jsonl"], CPU, packages())
    assert (code, err) == (0, "")
    assert out.endswith("\nNothing is missing.\n")
    code, out, _ = run([str(recipe), "model.no_such_key=1"], CPU, packages())
    assert code == 1
    assert "  missing  unknown key model.no_such_key" in out
    code, out, _ = run([str(tmp_path / "absent.yaml")], CPU, packages())
    assert code == 1
    assert "recipe must be an existing YAML file" in out


def test_settings_need_a_recipe(capsys):
    with pytest.raises(SystemExit):
        doctor.main(["model.path=x"])
    assert "settings need a recipe; got model.path=x." in capsys.readouterr().err
