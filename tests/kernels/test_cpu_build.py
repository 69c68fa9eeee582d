"""The build of the C++ library: without a compiler, and under sanitizers."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from avar_kernels import available_backends, cpu, visual_attn_func
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def setup_module_of_the_project():
    spec = importlib.util.spec_from_file_location("avar_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missing_compiler_is_named(tmp_path):
    build = setup_module_of_the_project().build_library
    with pytest.raises(CompileError, match="no C\\+\\+ compiler.*absent-compiler"):
        build(tmp_path / "_cpu.so", tmp_path / "objects", "absent-compiler")


def test_installing_without_a_compiler_succeeds_and_says_so_once(tmp_path):
    command = [sys.executable, "setup.py", "build_ext"]
    command += ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "objects")]
    environment = os.environ | {"CXX": "absent-compiler"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    said = done.stdout + done.stderr
    assert said.count("installed without its C++ kernel") == 1
    assert not list(tmp_path.rglob("*.so"))


def test_without_the_library_the_backend_says_why_and_sdpa_serves(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "LIBRARY", tmp_path / "_cpu.so")
    library, reason = cpu._try_load()
    assert library is None
    monkeypatch.setattr(cpu, "WHY_NOT", reason)
    status = available_backends()["cpu"]
    assert not status
    assert "not built; install a C++ compiler" in status.reason
    x = torch.randn(1, 3, 1, 8)
    assert visual_attn_func(x, x, x).out.shape == x.shape
    with pytest.raises(RuntimeError, match="backend 'cpu' does not run here: the C\\+\\+ library"):
        visual_attn_func(x, x, x, backend="cpu")


def test_a_library_that_does_not_load_is_a_reason(monkeypatch, tmp_path):
    broken = tmp_path / "_cpu.so"
    broken.write_text("not a library")
    monkeypatch.setattr(cpu, "LIBRARY", broken)
    library, reason = cpu._try_load()
    assert library is None
    assert re.match("_cpu.so does not load: .", reason)


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="links the sanitizers of GCC on Linux")
def test_no_address_or_undefined_behavior_errors(tmp_path):
    """All instruction sets over odd shapes, packed and dense, with buffers of exact size. Memory
    from malloc is filled with 0xff, NaN as float32: reading what was not written would show."""
    project = setup_module_of_the_project()
    sanitize = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-w")
    objects = tmp_path / "objects"
    try:
        project.build_library(tmp_path / "_cpu.so", objects, "c++", *sanitize)
    except CompileError as error:
        if "cannot find" in str(error):
            pytest.skip("the compiler comes without sanitizers")
        raise
    driver = tmp_path / "driver"
    source, parts = Path(__file__).with_name("cpu_driver.cpp"), sorted(objects.glob("*.o"))
    command = ["c++", "-std=c++17", *sanitize, source, *parts, "-o", driver, "-lpthread", "-ldl"]
    subprocess.run(command, check=True)
    options = "malloc_fill_byte=255:max_malloc_fill_size=1000000000:detect_leaks=1"
    done = subprocess.run(
        [driver], env={"ASAN_OPTIONS": options}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("calls\n")
