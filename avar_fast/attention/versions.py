"""Compares the installed transformers with the tested versions when the package is imported."""

from avar_kernels import check_versions

TESTED = {"transformers": ("5.16", "5.24")}
"""The oldest and the newest minor version that the tests ran with."""
BROKEN = {
    "transformers": {
        "5.6.0": "passes attention sinks to attentions that have none",
    }
}

check_versions(TESTED, BROKEN)
