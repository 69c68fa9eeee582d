"""Builds the C++ library of csrc/ as kernels/avar_kernels/_cpu.so; everything else is in
pyproject.toml.

The library is loaded through ctypes, so it depends on no version of Python or torch. It is
optional: without a C++ compiler the installation succeeds, says so, and avar_kernels computes on
CPU through torch's own attention.
"""

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path(__file__).resolve().parent / "csrc"
# Without trapping exceptions and errno the compiler may vectorize; IEEE arithmetic stays.
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"),
    *("-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
)
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (
    *_AVX2,
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"),
)
_AVX512_BF16 = (*_AVX512, "-mavx512bf16")
# One file per instruction set; which one runs is decided on the machine that runs it.
X86_FLAGS = {
    "isa_avx2": _AVX2,
    "isa_avx512": _AVX512,
    "isa_avx512_bf16": _AVX512_BF16,
    "isa_amx": (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16"),
}


def build_library(target: Path, objects: Path, compiler: str, *extra: str) -> None:
    """Compiles csrc/ to a shared library at ``target``; raises CompileError naming the cause."""
    objects.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    files = [file for file in sorted(SOURCES.glob("*.cpp")) if x86 or file.stem not in X86_FLAGS]

    def run(*arguments: object) -> None:
        command = [compiler, *map(str, arguments)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise CompileError(f"no C++ compiler: {error}") from error
        except subprocess.CalledProcessError as error:
            raise CompileError(f"{' '.join(command)}\n{error.stderr}") from error

    def compile_file(file: Path) -> Path:
        made = objects / f"{file.stem}.o"
        run(*FLAGS, *X86_FLAGS.get(file.stem, ()), *extra, "-c", file, "-o", made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compile_file, files))
    # Under a name of its own first: a process that has the old library mapped keeps it whole.
    partial = target.with_suffix(".partial")
    run("-shared", *extra, *made, "-o", partial, "-lpthread", "-ldl")
    partial.replace(target)


class BuildLibrary(build_ext):
    """Builds _cpu.so instead of an extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        compiler = os.environ.get("CXX", "c++")
        try:
            build_library(
                Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp) / "csrc", compiler
            )
        except CompileError as error:
            raise CompileError(
                f"{error}\nThe package is installed without its C++ kernel and computes on CPU"
                " through torch. For the kernel, install a C++ compiler (or name it in CXX) and"
                " install the package again."
            ) from error


class Wheel(bdist_wheel):
    """A wheel for a platform and any Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


if __name__ == "__main__":
    setup(
        ext_modules=[Extension("avar_kernels._cpu", [], optional=True)],
        cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel},
    )
