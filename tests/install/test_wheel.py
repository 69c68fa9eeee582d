"""What an installation holds and says, without downloads: the wheel, its metadata, and the doctor
in an environment of torch alone."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes

import pytest

from .bare_environment import ROOT, BareEnvironment, copy_sources

ABSENT = "absent-compiler"


def build_wheel(folder, **environment):
    """(wheel, what pip printed) of a copy of the sources."""
    sources = copy_sources(folder / "sources")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-v"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder)],
        cwd=sources, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel from a machine without a compiler."""
    return build_wheel(tmp_path_factory.mktemp("built"), CXX=ABSENT)


@pytest.fixture(scope="module")
def core(built, tmp_path_factory):
    """An environment with torch, triton and the wheel alone."""
    environment = BareEnvironment(tmp_path_factory.mktemp("core"), "torch", "triton")
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(environment.packages)
    return environment


def test_the_wheel_holds_the_packages_and_their_files(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    wanted = {
        str(file.relative_to(folder))
        for folder, package in ((ROOT, "avar_fast"), (ROOT / "kernels", "avar_kernels"))
        for pattern in ("*.py", "*.yaml", "py.typed")
        for file in (folder / package).rglob(pattern)
    }
    assert {"avar_fast/py.typed", "avar_kernels/py.typed", "avar_fast/evaluate/paper.yaml"} < wanted
    assert "avar_fast/synthesize/prompts/describe.yaml" in wanted
    others = {name for name in names if ".dist-info/" not in name}
    assert others == wanted
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_without_a_compiler_the_build_says_so(built):
    assert "installed without its C++ kernel and computes on CPU" in built[1]
    assert f"no C++ compiler: [Errno 2] No such file or directory: '{ABSENT}'" in built[1]


def test_a_cuda_build_of_torch_satisfies_the_metadata(built):
    wheel = zipfile.ZipFile(built[0])
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    requirements = message_from_bytes(wheel.read(name)).get_all("Requires-Dist") or []
    packaging = pytest.importorskip("packaging.requirements")
    parsed = [packaging.Requirement(line) for line in requirements]
    (torch,) = (each for each in parsed if each.name == "torch")
    for version in ("2.11.0", "2.13.0+cpu", "2.15.0", "2.15.1+cu130", "2.12.0+rocm7.1"):
        assert version in torch.specifier, version
    assert "2.10.1" not in torch.specifier
    assert "2.16.0" not in torch.specifier
    (triton,) = (each for each in parsed if each.name == "triton")
    assert all(version in triton.specifier for version in ("3.6.0", "3.9.0"))
    assert not re.search(r"\+\w", " ".join(requirements))  # no pin of one build


def test_the_doctor_where_only_the_core_is_installed(core, tmp_path):
    done = core.run("-m", "avar_fast.doctor", cwd=tmp_path)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1
    said = done.stdout
    assert re.search(r"^  sdpa +runs$", said, re.M)
    assert re.search(r"^  cpu +the C\+\+ library is not built; install a C", said, re.M)
    assert re.search(r"^  transformers +- +not installed; tested: >=5", said, re.M)
    assert re.search(r"^  torch +2\.\S+ +tested: >=2.11,<2.16$", said, re.M)
    (lack,) = re.findall(r"^  avar_fast.evaluate +(.*)$", said, re.M)
    assert lack.startswith("not installed: transformers, ")
    assert lack.endswith('scipy, openai. Use: pip install "avar-fast[eval]"')
    assert done.stderr.startswith("error: the trainer does not run: not installed: transformers,")
    assert len(done.stderr.splitlines()) == 1


def test_the_doctor_on_a_recipe_where_only_the_core_is_installed(core, tmp_path):
    done = core.run("-m", "avar_fast.doctor", str(ROOT / "configs/lab-sft.yaml"), cwd=tmp_path)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1
    need = (
        'avar_fast.train needs the package pyyaml, which is not installed. Use: pip install "avar'
    )
    assert f"  missing  {need}" in done.stdout
    assert done.stderr.endswith("configs/lab-sft.yaml lacks 1 thing, see above.\n")


@pytest.mark.parametrize(
    ("command", "extras"),
    [
        ("avar_fast.train recipe.yaml", "train"),
        ("avar_fast.data check recipe.yaml", "train"),
        ("avar_fast.evaluate model --out r.json", "eval"),
        ("avar_fast.studies score model", "eval,report"),
        ("avar_fast.synthesize recipe.yaml", "synth"),
        ("avar_fast.lab model --out x --seed 0", "lab"),
        ("avar_fast.lab.demo", "lab,report"),
        ("avar_fast.lab.ablation", "lab,eval,synth,report"),
    ],
)
def test_programs_name_their_extras(core, tmp_path, command, extras):
    """The names of modules in a traceback were all that a user of the core saw."""
    module, *arguments = command.split()
    done = core.run("-m", module, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]  # torch warns that it has no numpy
    assert line.startswith(f"error: {module} needs the package ")
    assert line.endswith(f', which is not installed. Use: pip install "avar-fast[{extras}]"')


def test_a_library_gets_an_import_error(core, tmp_path):
    code = "try:\n import avar_fast.attention\nexcept ImportError as e:\n print(e.name, e)"
    done = core.run("-c", code, cwd=tmp_path)
    assert done.stdout.startswith("transformers avar_fast.attention needs the package transformers")


def test_the_kernels_run_on_the_core_alone(core, tmp_path):
    code = (
        "import torch, avar_kernels as ak; q = torch.randn(1, 4, 2, 8);"
        "print(ak.visual_attn_func(q, q, q).out.shape[1], ak.available_backends()['cpu'].reason)"
    )
    done = core.run("-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.stdout.startswith("4 the C++ library is not built; install a C++ compiler")
