"""Every extra, installed by pip into an environment of its own, and the doctor in it.

Environments lie on one another: what an extra includes is installed once. torch goes first at its
exact version, as in the Makefile.
"""

import os
import re
import subprocess
import sys
import venv
import zipfile

import pytest

from avar_fast.extras import EXTRAS, INCLUDED, PARTS, packages_of

from .bare_environment import ROOT, copy_sources

pytestmark = pytest.mark.install
INSTALLED = tuple(extra for extra in EXTRAS if extra not in ("flash", "vllm"))
"""flash and vllm are built for GPUs."""
CONSTRAINTS = ROOT / "constraints.txt"


class PipEnvironment:
    """A virtual environment that also sees the packages of others."""

    def __init__(self, folder, *below):
        self.folder, self.below = folder, below
        venv.create(folder, with_pip=True, symlinks=True)
        self.packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        (self.packages / "below.pth").write_text("".join(f"{each.packages}\n" for each in below))

    def run(self, *command, code=0):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        kept["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{kept['PATH']}"
        done = subprocess.run(
            [str(self.folder / "bin" / "python"), "-m", *map(str, command)],
            cwd=self.folder, env=kept, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, said
        return said

    def install(self, *requirements):
        self.run("pip", "install", "--quiet", "-c", CONSTRAINTS, *requirements)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return copy_sources(tmp_path_factory.mktemp("install") / "sources")


@pytest.fixture(scope="module")
def core(sources, tmp_path_factory):
    made = PipEnvironment(tmp_path_factory.mktemp("core"))
    (torch,) = re.findall(r"^torch==.*$", CONSTRAINTS.read_text(), re.M)
    made.install(torch)
    made.install(sources)
    return made


@pytest.fixture(scope="module")
def wheel(sources, core, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    core.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sources)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environments(core, wheel, tmp_path_factory):
    """{extra: an environment with it, on those with what it includes}"""
    made = {}
    for extra in INSTALLED:
        below = [made[name] for name in INCLUDED.get(extra, ())]
        under = dict.fromkeys(each for one in below for each in (one, *one.below))
        made[extra] = PipEnvironment(tmp_path_factory.mktemp(extra), *under, core)
        made[extra].install(f"{wheel}[{extra}]")
    return made


def test_the_core(core):
    said = core.run("avar_fast.doctor", code=1)
    assert "error: the trainer does not run: not installed: transformers," in said
    assert re.search(r"^  sdpa +runs$", said, re.M)
    assert re.search(r"^  torch +2\.13\.0\S* +tested: >=2.11,<2.16$", said, re.M)
    core.run("pip", "check")


def test_the_wheel_holds_the_library_and_no_sources(wheel, core):
    names = zipfile.ZipFile(wheel).namelist()
    assert "avar_kernels/_cpu.so" in names
    assert not any("csrc" in name or name.endswith(".cpp") for name in names)
    said = core.run("avar_fast.doctor", code=1)
    assert re.search(r"^  cpu +runs$", said, re.M)


@pytest.mark.parametrize("extra", INSTALLED)
def test_an_extra(environments, extra):
    """All parts that it brings are ready, and pip finds no conflict."""
    environment = environments[extra]
    environment.run("pip", "check")
    brought = {extra, *INCLUDED.get(extra, ())}
    said = environment.run("avar_fast.doctor", code=0 if "train" in brought else 1)
    assert "Traceback" not in said
    packages = {name for each in brought for name in EXTRAS[each]}
    for part in PARTS:
        (state,) = re.findall(rf"^  {re.escape(part)} +(.*)$", said, re.M)
        if packages.issuperset(packages_of(part)):
            assert state == "ready", f"{part}: {state}"
        else:
            assert "Use: pip install" in state, f"{part}: {state}"
    assert "outside of what was tested" not in said
