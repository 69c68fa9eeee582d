"""Rewards whose processes end with the test."""

import pytest

from avar_fast.rewards import Rewards


@pytest.fixture
def rewards():
    made = []

    def make(*names, columns=("hint",), **options):
        made.append(Rewards(names, **options))
        made[-1].start(columns)
        return made[-1]

    yield make
    for some in made:
        some.close()
