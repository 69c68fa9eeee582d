"""Everything is in pyproject.toml; this file is where the C++ extension of csrc/ will be
declared."""

from setuptools import setup

setup()
