"""The kernels without the trainer: their wheel, and the layout of the Kernel Hub."""

import base64
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions

import avar_kernels
import pytest
import torch

from .bare_environment import ROOT

RELEASE = ROOT / "kernels" / "release" / "pack.py"
WHOLE, ALONE = (
    tomllib.loads((ROOT / name).read_text())["project"]
    for name in ("pyproject.toml", "kernels/release/pyproject.toml")
)


def release(kind, out, **environment):
    command = [sys.executable, str(RELEASE), kind, "--out", str(out)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    out = tmp_path_factory.mktemp("release") / "hub"
    done = release("hub", out)
    assert done.returncode == 0, done.stderr
    return out


def load(folder, name):
    """Imports a package under another name from where it lies, as the Kernel Hub does."""
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def compare_with_the_installed(module):
    """Results and gradients of a copy; both live in this process."""
    grads = []
    for package in (avar_kernels, module):
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, 9, 2, 8, requires_grad=True) for _ in range(3))
        types = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2, -1]], dtype=torch.int32)
        result = package.visual_attn_func(q, k, v, types, causal=True, backend="sdpa")
        (result.out.square().sum() + result.mass[..., 1].sum()).backward()
        grads.append([result.out, result.mass, q.grad, k.grad, v.grad])
    for ours, theirs in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)


def test_both_packages_state_the_same_versions():
    for key in ("version", "requires-python", "license"):
        assert WHOLE[key] == ALONE[key], key


def test_the_wheel_holds_the_kernels_alone(tmp_path):
    done = release("wheel", tmp_path, CXX="absent-compiler", PIP_NO_BUILD_ISOLATION="0")
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("avar_kernels-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "kernels" / "avar_kernels"
    files = [*package.rglob("*.py"), package / "py.typed"]
    assert names == {file.relative_to(package.parent).as_posix() for file in files}


def test_every_build_of_the_hub_is_whole(hub):
    settings = tomllib.loads((hub / "build.toml").read_text())["general"]
    assert settings["name"] == ALONE["name"]
    assert (hub / "README.md").read_text().startswith("---\nlibrary_name: kernels\n")
    for backend in settings["backends"]:
        build = hub / "build" / f"torch-{backend}"
        metadata = json.loads((build / "metadata.json").read_text())
        assert metadata["id"].isidentifier()
        assert metadata["backend"] == {"type": backend}
        files = {f for f in build.rglob("*") if f.is_file() and f.name != "metadata.json"}
        assert metadata["digest"]["files"] == {
            file.relative_to(build).as_posix(): base64.b64encode(
                hashlib.sha256(file.read_bytes()).digest()
            ).decode()
            for file in files
        }
        assert not [file for file in files if file.suffix == ".so"]


def test_a_build_runs_beside_the_installed_package(hub):
    """Both would have registered the same operators."""
    build = hub / "build" / "torch-cpu"
    name = json.loads((build / "metadata.json").read_text())["id"]
    compare_with_the_installed(load(build, name))
    assert hasattr(getattr(torch.ops, name), "visual_attn")


def test_the_kernels_package_loads_it(hub):
    # The folder kernels/ of this tree would pass for an installed package.
    if not [*distributions(name="kernels")]:
        pytest.skip("make test-integrations has the package kernels")
    kernels = importlib.import_module("kernels")
    compare_with_the_installed(kernels.get_local_kernel(hub / "build", backend="cpu"))


def test_an_existing_folder_is_refused(hub):
    done = release("hub", hub)
    assert done.returncode == 1
    assert done.stderr == f"error: --out: {hub} exists. Remove it, or name another folder.\n"
