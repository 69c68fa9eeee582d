"""The origin of a result: version and commit of this project, and a digest of the weights."""

import hashlib
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

SAMPLED_BYTES = 1 << 16


def project() -> dict[str, Any]:
    """Version of the project and, in a checkout, its commit."""
    try:
        installed = version("avar-fast")
    except PackageNotFoundError:
        installed = "not installed"
    return {"version": installed} | commit_of(Path(__file__).parents[2])


def short_version() -> str:
    """The abbreviated commit of a checkout; else the installed version."""
    found = project()
    return found["commit"][:7] if found["commit"] else found["version"]


def processor() -> str:
    """The CPU that a small training ran on, such as "2 CPU cores (AVX2)". Other instruction sets
    round otherwise, and training makes much of it: the same run ends elsewhere."""
    return f"{os.cpu_count()} CPU cores ({torch.backends.cpu.get_cpu_capability()})"


def commit_of(root: Path) -> dict[str, Any]:
    """The commit of a checkout. It is None if ``root`` is not the top folder of a checkout, for
    example if the package is installed in a virtual environment inside another checkout."""
    if not (root / ".git").exists():
        return {"commit": None}
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None}
    return {"commit": commit, "uncommitted_changes": bool(changed)}


def weights_digest(path: str) -> str | None:
    """Digest of a model folder; None for a hub name. It covers the names, the sizes and samples of
    the weights and configuration files, which is enough to tell checkpoints apart."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            for place in (0, size // 2, max(size - SAMPLED_BYTES, 0)):
                content.seek(place)
                digest.update(content.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]
