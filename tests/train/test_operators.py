"""What DeepSpeed compiles: once in an environment, activated or not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NINJA = Path(sys.executable).with_name("ninja")
SCRIPT = """
import shutil
from avar_fast.train.engine import init_distributed
before = shutil.which("ninja")
init_distributed()
print(before, shutil.which("ninja"))
"""


@pytest.mark.skipif(not NINJA.exists(), reason="this environment has no ninja of its own")
def test_an_environment_that_is_not_activated_uses_its_own_ninja(tmp_path):
    """Where the system's had another version, each run built the operator anew."""
    other = tmp_path / "ninja"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-2:] == [str(other), str(NINJA)]
