"""One child process answers all selected requests of a test module."""

import pytest

from ..triton_backend.children import selected
from .chip_processes import answers


@pytest.fixture(scope="module")
def case_answers(request):
    """{request: what is wrong}, for the selected cases of the module only."""
    return answers("cases", selected(request, "case"))
