"""Rows of the lab, written once."""

import pytest

from avar_fast.lab.world import WorldConfig, write_rows


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory):
    """A JSONL file with eight rows of different length."""
    folder = tmp_path_factory.mktemp("rows")
    return write_rows(folder, WorldConfig(), "train", num_rows=8, seed=4)
