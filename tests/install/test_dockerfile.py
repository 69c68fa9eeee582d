"""The Dockerfile is not built here: its versions, extras and files are compared with the tree."""

import re
import tomllib

import pytest

from avar_fast.doctor.packages import admits

from .bare_environment import FILES, ROOT, SOURCES

TEXT = (ROOT / "docker" / "Dockerfile").read_text()
ARGUMENTS = dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', TEXT, re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("package", ["torch", "triton", "transformers"])
def test_versions_are_in_range(package):
    lines = [*PROJECT["dependencies"], *EXTRAS["train"]]
    (allowed,) = [line for line in lines if line.startswith(f"{package}>")]
    assert admits(allowed, ARGUMENTS[package.upper()])


def test_extras_exist_and_are_complete():
    extras = ARGUMENTS["EXTRAS"].split()
    assert set(extras) <= set(EXTRAS)
    lines = [line for extra in extras for line in EXTRAS[extra]]
    included = re.findall(r"avar-fast\[([\w,]+)\]", " ".join(lines))
    assert {name for group in included for name in group.split(",")} <= set(extras)


def test_the_build_gets_every_file_of_an_installation():
    copied = set(re.findall(r"^COPY \S+ (.*) \S+$", TEXT, re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    assert {*FILES, *SOURCES, "configs"} == names
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == names


def test_the_image_does_not_run_as_root():
    assert re.findall(r"^USER (.+)$", TEXT, re.MULTILINE) == ["${UID}"]
    assert int(ARGUMENTS["UID"]) > 0
