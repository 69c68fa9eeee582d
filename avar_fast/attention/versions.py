"""Compares the installed transformers with the tested versions when the package is imported."""

from avar_kernels import check_versions

TESTED = {"transformers": ("4.55", "5.24")}
"""The oldest and the newest minor version that the plug-in's tests ran with. The trainer needs a
newer one; its range is in pyproject.toml."""

check_versions(TESTED)
