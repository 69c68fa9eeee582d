"""Real kernels without one of their barriers or waits: the emulator sees it; see ``planted``."""

import pytest

from ..triton_backend.children import selected
from .chip_processes import answers
from .selection import FAULTY_KERNELS, in_subset

MOST_UNNOTICED = 1 / 3


@pytest.fixture(scope="module")
def fault_answers(request):
    """{request: {removed instruction: outcome}}, for the selected ones only."""
    return answers("faults", selected(request, "kernel"))


@pytest.mark.parametrize(
    "kernel",
    [
        in_subset(f"{chip}:{kernel}", kernel == "forward")
        for chip in ("sm_80", "sm_90")
        for kernel in FAULTY_KERNELS
    ],
)
def test_removed_barriers_and_waits_are_noticed(fault_answers, kernel):
    """Redundant ones exist; ``planted`` says how that is known. They are few."""
    assert kernel in fault_answers, fault_answers["stderr"]
    outcomes = fault_answers[kernel]
    assert isinstance(outcomes, dict), outcomes
    unnoticed = {fault: what for fault, what in outcomes.items() if what.startswith("not noticed")}
    assert len(outcomes) >= 10
    assert len(unnoticed) <= MOST_UNNOTICED * len(outcomes), unnoticed
