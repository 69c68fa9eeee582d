"""Environments that hold chosen packages only, as links, and copies of the source tree."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("avar_fast", "kernels", "csrc")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
BUILT = ("_cpu.so", "__pycache__", "*.egg-info", "build")


def copy_sources(folder: Path) -> Path:
    """The files that an installation is made from, without what was built in the tree."""
    folder.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*BUILT))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


class BareEnvironment:
    """A virtual environment without pip, with links to distributions that are installed here and
    to all that they require."""

    def __init__(self, folder: Path, *distributions: str) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        self.packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        todo, done = list(distributions), set()
        while todo:
            name = todo.pop().lower().replace("_", "-")
            if name not in done:
                done.add(name)
                todo += self._link(name)

    def _link(self, name: str) -> list[str]:
        """Links a distribution; returns the names of those that it requires."""
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform or Python
            return []
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (self.packages / top).exists():
                (self.packages / top).symlink_to(Path(str(found.locate_file(top))))
        required = [line for line in found.requires or [] if "extra ==" not in line]
        return [match[0] for line in required if (match := re.match(r"[\w.-]+", line))]

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs its interpreter."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [str(self.folder / "bin" / "python"), *command],
            capture_output=True, text=True, check=False, env=environment, cwd=cwd,
        )  # fmt: skip
