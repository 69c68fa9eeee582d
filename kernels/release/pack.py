"""Packs avar_kernels alone: as a wheel, or in the layout of the Hugging Face Kernel Hub.

    python kernels/release/pack.py wheel --out dist
    python kernels/release/pack.py hub --out dist/hub

The wheel holds the C++ library; auditwheel and patchelf, where installed, give it a manylinux tag.
The Hub's layout holds Python alone, so its CPU variant computes through torch; it is what
kernel-builder makes of a project without compiled code.
"""

import argparse
import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

RELEASE = Path(__file__).resolve().parent
PACKAGE = RELEASE.parent / "avar_kernels"
ROOT = RELEASE.parent.parent
NOT_RELEASED = shutil.ignore_patterns("__pycache__", "*.so")
BACKENDS = ("cpu", "cuda", "rocm")
HUB_VERSION = 0
"""0 until a GPU has run the kernels: the Hub keeps it for what is not meant for production."""
CARD = "---\nlibrary_name: kernels\nlicense: apache-2.0\n---\n\n"
FROM_THE_HUB = """
## From the Kernel Hub

```python
from kernels import get_local_kernel

avar_kernels = get_local_kernel("path/of/this/folder/build")
```

This copy holds no C++ library: on a CPU it computes through torch, several times slower than the
wheel.
"""


def write_wheel(out: Path) -> Path:
    """Builds the wheel of avar-kernels in ``out``, with a manylinux tag if auditwheel is there."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree, built, tagged = (Path(folder) / name for name in ("tree", "built", "tagged"))
        shutil.copytree(PACKAGE, tree / "kernels" / PACKAGE.name, ignore=NOT_RELEASED)
        shutil.copytree(ROOT / "csrc", tree / "csrc")
        for name in ("setup.py", "LICENSE", "MANIFEST.in"):
            shutil.copy(ROOT / name, tree)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(RELEASE / name, tree)
        _run("pip", "wheel", "--no-deps", "--wheel-dir", built, tree)
        (wheel,) = built.glob("*.whl")
        if importlib.util.find_spec("auditwheel") is None:
            print("auditwheel is not installed: on an older Linux the wheel may not run")
        else:
            _run("auditwheel", "repair", "--wheel-dir", tagged, wheel)
            (wheel,) = tagged.glob("*.whl")
        return Path(shutil.copy(wheel, out))


def _run(module: str, *arguments: object) -> None:
    """Runs a module of this environment, which finds the environment's programs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"PATH": path})


def write_hub(out: Path) -> Path:
    """Writes the Kernel Hub's layout to ``out``: sources, card and one build per backend."""
    if out.exists():
        raise SystemExit(f"error: --out: {out} exists. Remove it, or name another folder.")
    project = tomllib.loads((RELEASE / "pyproject.toml").read_text())["project"]
    sources = out / "torch-ext" / "avar_kernels"
    shutil.copytree(PACKAGE, sources, ignore=NOT_RELEASED)
    shutil.copy(ROOT / "LICENSE", out)
    (out / "README.md").write_text(CARD + (RELEASE / "README.md").read_text() + FROM_THE_HUB)
    (out / "build.toml").write_text(
        f'[general]\nname = "{project["name"]}"\nversion = {HUB_VERSION}\nedition = 5\n'
        f'license = "{project["license"]}"\nbackends = {json.dumps(BACKENDS)}\n\n[torch-noarch]\n'
    )
    content = hashlib.sha256(json.dumps(_digests(sources)).encode()).hexdigest()[:7]
    for backend in BACKENDS:
        variant = out / "build" / f"torch-{backend}"
        shutil.copytree(sources, variant)
        metadata = {
            "name": project["name"],
            # Operators are registered under it, so that two versions can live in one process.
            "id": f"_avar_kernels_{backend}_{content}",
            "version": HUB_VERSION,
            "license": project["license"],
            "python-depends": [],
            "backend": {"type": backend},
            "digest": {"algorithm": "sha256", "files": _digests(variant)},
        }
        (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return out


def _digests(folder: Path) -> dict[str, str]:
    """{path inside the folder: SHA-256 in base64} of all files."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    hashes = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    return {
        file.relative_to(folder).as_posix(): base64.b64encode(digest).decode()
        for file, digest in zip(files, hashes, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("wheel", "hub"))
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    made = (write_wheel if options.kind == "wheel" else write_hub)(options.out)
    print(f"wrote {made}")


if __name__ == "__main__":
    main()
