"""Where a result comes from: version and commit of this project, and a digest of the weights."""

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SAMPLED_BYTES = 1 << 16


def project() -> dict[str, Any]:
    """Version of the project and, in a checkout, its commit."""
    try:
        found = version("avar-fast")
    except PackageNotFoundError:
        found = "not installed"
    return {"version": found} | commit_of(Path(__file__).parents[2])


def commit_of(root: Path) -> dict[str, Any]:
    """The commit of a checkout; none of a copy installed inside another project's checkout, as in
    its virtual environment."""
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
    """Of a model folder: names, sizes and samples of its weights and its configuration, enough to
    tell one checkpoint from another; None for a hub name."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    seen = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        size = file.stat().st_size
        seen.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            for place in (0, size // 2, max(size - SAMPLED_BYTES, 0)):
                content.seek(place)
                seen.update(content.read(SAMPLED_BYTES))
    return seen.hexdigest()[:16]
