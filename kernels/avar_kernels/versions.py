"""Compares installed packages with the versions that the tests ran with, once at import."""

import re
import warnings
from importlib.metadata import PackageNotFoundError, version

TESTED = {"torch": ("2.9", "2.15"), "triton": ("3.5", "3.9")}
"""The oldest and the newest minor version that the tests of this package ran with."""


class UntestedVersionWarning(UserWarning):
    """An installed package is older or newer than the versions that were tested."""


def check_versions(tested: dict[str, tuple[str, str]]) -> None:
    """Warns about packages outside the tested range.

    Args:
        tested: {package: (oldest, newest minor version)}. A package that is not installed is
            skipped.
    """
    for package, (oldest, newest) in tested.items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            continue
        if not _numbers(oldest) <= _numbers(installed)[:2] <= _numbers(newest):
            warnings.warn(
                f"{package} {installed} was not tested with this release, which was tested with"
                f" {oldest} to {newest}. Install one of these if anything looks wrong.",
                UntestedVersionWarning,
                stacklevel=3,
            )


def _numbers(text: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cpu"."""
    release = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
