"""Small studies that train: a process trains only once, and other tests may have trained in it."""

import multiprocessing
import os
import subprocess
import sys

import pytest

_ALONE = "AVAR_TEST_ALONE"
only_alone = pytest.mark.skipif(_ALONE not in os.environ, reason="another test runs it")
"""Marks a test that ``passes_alone`` runs."""


def passes_alone(file, name):
    """Runs one test of a file, whose name has ``name`` in it, in a process of its own."""
    command = [sys.executable, "-m", "pytest", file, "-p", "no:benchmark", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, "-q", "-k", name],
        env=os.environ | {_ALONE: "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout[-3000:]


def apart(make, *arguments):
    """Runs a part of a study in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=make, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
