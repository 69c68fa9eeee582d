"""Results of the C++ kernel do not depend on threads, and threads are torch's."""

import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from avar_kernels import cpu

from .calls import attend, make, run

pytestmark = pytest.mark.skipif(bool(cpu.WHY_NOT), reason=cpu.WHY_NOT)
SHAPE = (2, 300, 1200, 4, 2, 24, 16, True, (-1, -1))  # three chunks of keys, several tiles


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def problem(dtype):
    """A function without arguments: forward and backward of one call."""
    leaves, types, options = make(SHAPE, dtype)
    return lambda: run(attend(types, options, "cpu"), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(dtype):
    results = problem(dtype)
    torch.set_num_threads(1)
    want = results()
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        got = results()
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), threads


def test_the_number_of_threads_is_torchs(monkeypatch):
    asked = []
    library = cpu._library()

    class Spy:
        def avar_forward(self, args):
            asked.append(struct.unpack_from("=3q", args)[2])  # isa, dtype, threads
            library.avar_forward(args)

    monkeypatch.setattr(cpu, "_LIBRARY", Spy())
    monkeypatch.setattr(cpu, "_isa", lambda: 0)
    q = torch.randn(1, 3, 2, 8)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.ops.avar_kernels.visual_attn(
            q, q, q, *[None] * 7, 0, 0, 1, 1.0, False, -1, -1, False, "cpu"
        )
    assert asked == [1, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_come_from_torchs_own_runtime():
    if "libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip("this torch runs its threads without libgomp")
    assert cpu.thread_runtime() == "openmp"


def test_calls_from_several_python_threads():
    torch.set_num_threads(2)
    results = problem(torch.float32)
    want = results()
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: results(), range(8)):
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
