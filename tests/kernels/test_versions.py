"""Packages outside the tested range are named in a warning."""

import re
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from avar_kernels import UntestedVersionWarning, versions

from avar_fast.attention import versions as plug_in

ROOT = Path(__file__).parents[2]
RANGE = {"torch": ("2.11", "2.15")}


@pytest.fixture
def installed(monkeypatch):
    def install(**packages):
        def version(name):
            if name not in packages:
                raise PackageNotFoundError(name)
            return packages[name]

        monkeypatch.setattr(versions, "version", version)

    return install


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "2.15.3", "2.15.0rc1", "2.11"])
def test_tested_versions_pass(installed, version):
    installed(torch=version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.check_versions(RANGE)


@pytest.mark.parametrize("version", ["2.10.1", "2.16.0", "3.0.0", "1.13", "2.9.0+cu128"])
def test_others_are_named(installed, version):
    installed(torch=version)
    message = rf"torch {re.escape(version)} was not tested .* 2.11 to 2.15"
    with pytest.warns(UntestedVersionWarning, match=message):
        versions.check_versions(RANGE)


def test_a_package_that_is_not_installed_is_skipped(installed):
    installed()
    versions.check_versions(RANGE)


def dependencies(file):
    return tomllib.loads((ROOT / file).read_text())["project"]


def test_the_ranges_are_those_of_the_packages():
    """A pyproject.toml has "package>=oldest,<one minor version above the newest". The kernels and
    the plug-in work with older releases than the trainer, for which the ranges of avar-fast are."""
    project = dependencies("pyproject.toml")
    lines = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    alone = dependencies("kernels/release/pyproject.toml")["dependencies"]
    for package, (oldest, newest) in (versions.TESTED | plug_in.TESTED).items():
        line = next(line for line in lines if re.match(rf"{package}\b", line))
        major, minor = newest.split(".")
        below = f",<{major}.{int(minor) + 1}"
        assert line.split(";")[0].endswith(below)
        if package in versions.TESTED:
            (line,) = (line for line in alone if re.match(rf"{package}\b", line))
            assert line.split(";")[0] == f"{package}>={oldest}{below}"
