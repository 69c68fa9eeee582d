"""Checks of asynchronous copies and products: each fires on a small planted fault, and not on the
sound kernel."""

import pytest
import torch

from .emulator.errors import KernelFaultError
from .faulty import BARRIER, LOAD, RESULT, STORE, faults, shared, sound
from .handwritten import ADDRESSES, run

COPY = "cp.async.ca.shared.global [ %r1 + 0 ], [ %rd10 + 0 ], 0x4;"
COMMIT = "cp.async.commit_group;"


def wait(still_pending: int) -> str:
    return f"cp.async.wait_group {still_pending};"


class TestCopies:
    def test_copy_wait_and_barrier(self):
        got = sound(shared(COPY, COMMIT, wait(0), BARRIER, LOAD, RESULT), shared_bytes=256)
        assert got.tolist() == [i ^ 32 for i in range(64)]

    def test_a_barrier_after_the_wait(self):
        body = shared(COPY, COMMIT, wait(0), LOAD)
        faults(body, "read and written by two warps", shared_bytes=256)

    def test_read_while_the_copy_is_in_flight(self):
        body = shared(COPY, COMMIT, BARRIER, LOAD)
        faults(body, "read while a cp.async in flight", shared_bytes=256)

    def test_write_while_the_copy_is_in_flight(self):
        faults(shared(COPY, COMMIT, STORE), "written while a cp.async", shared_bytes=256)
        faults(shared(COPY, COMMIT, BARRIER, COPY), "written while a cp.async", shared_bytes=256)

    def test_a_copy_over_what_another_warp_reads(self):
        body = shared(STORE, BARRIER, LOAD)
        end = COMMIT + wait(0)
        sound(body + BARRIER + COPY + end, shared_bytes=256)
        faults(body + COPY + end, "written and read by two warps", shared_bytes=256)

    def test_groups_complete_in_order(self):
        """Two copies in two groups: waiting for all but one lands the first only."""
        second = "cp.async.ca.shared.global [ %r1 + 256 ], [ %rd10 + 0 ], 0x4;"
        of_second = "ld.shared.b32 %r3, [%r2+256];"
        two = shared(COPY, COMMIT, second, COMMIT)
        end = COMMIT + wait(0)
        sound(two + wait(1) + BARRIER + LOAD + wait(0), shared_bytes=512)
        faults(two + wait(2) + BARRIER + LOAD + wait(0), "in flight", shared_bytes=512)
        faults(two + wait(1) + BARRIER + of_second + wait(0), "in flight", shared_bytes=512)
        # An empty group counts.
        sound(two + COMMIT + wait(1) + BARRIER + of_second + end, shared_bytes=512)

    def test_a_copy_that_is_never_waited_for(self):
        faults(shared(COPY, COMMIT), "cp.async is never waited for", shared_bytes=256)
        faults(shared(COPY), "cp.async is never waited for", shared_bytes=256)
        sound(shared(COPY, "cp.async.wait_all;"), shared_bytes=256)

    def test_zeros_where_nothing_is_read(self):
        body = """
            setp.lt.u32 %p1, %r0, 10; selp.b32 %r4, 4, 0, %p1;
            selp.b64 %rd10, %rd10, 1, %p1;
            cp.async.ca.shared.global [ %r1 + 0 ], [ %rd10 + 0 ], 0x4, %r4;
        """
        end = f"{ADDRESSES} ld.shared.b32 %r3, [%r1]; {RESULT}"
        got = sound(shared(body, COMMIT, wait(0), end), shared_bytes=256)
        assert got.tolist() == [*range(10), *[0] * 54]

    def test_misaligned_and_outside(self):
        odd = "cp.async.cg.shared.global [ %r1 + 0 ], [ %rd0 + 0 ], 0x10;"
        faults(shared(odd, COMMIT, wait(0)), "misaligned shared", shared_bytes=512)
        outside = "cp.async.ca.shared.global [ %r1 + 0 ], [ %rd10 + 4 ], 0x4;"
        faults(shared(outside, COMMIT, wait(0)), "outside all tensors", shared_bytes=256)


# A (64, 16) in shared memory at 0, B (16, 8) at 2048, both all ones in bfloat16; no swizzle.
FILL = """
    mov.b32 %r5, 1065369472;
    shl.b32 %r1, %r0, 4;
    st.shared.v4.b32 [%r1], {%r5, %r5, %r5, %r5};
    st.shared.v4.b32 [%r1+2048], {%r5, %r5, %r5, %r5};
"""
FENCES = "fence.proxy.async.shared::cta; wgmma.fence.sync.aligned;"
PRODUCT = f"""
    mov.b64 %rd12, {8 << 16 | 16 << 32};
    mov.b64 %rd13, {128 | 8 << 16 | 16 << 32};
    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%r60, %r61, %r62, %r63}}, %rd12, %rd13,
        0, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
"""
FINISH = "wgmma.wait_group.sync.aligned 0;"
TAKE = "cvt.rzi.s32.f32 %r3, %r60;" + RESULT
WARPGROUP = {"shared_bytes": 4096}


def run_warpgroup(body: str) -> torch.Tensor:
    numbers = torch.zeros(128, dtype=torch.int32)
    run(ADDRESSES + body, numbers, threads=128, shared_bytes=4096)
    return numbers


def warpgroup_faults(body: str, match: str) -> None:
    with pytest.raises(KernelFaultError, match=match):
        run_warpgroup(body)


class TestWarpgroupProducts:
    def test_sound(self):
        body = FILL + BARRIER + FENCES + PRODUCT + FINISH + TAKE + BARRIER + FILL
        assert run_warpgroup(body).tolist() == [16] * 128

    def test_a_barrier_between_write_and_product(self):
        warpgroup_faults(FILL + FENCES + PRODUCT + FINISH, "read and written by two warps.*wgmma")

    def test_a_fence_between_write_and_product(self):
        body = FILL + BARRIER + "wgmma.fence.sync.aligned;" + PRODUCT + FINISH
        warpgroup_faults(body, "without fence.proxy.async before wgmma")

    def test_operands_that_nobody_wrote(self):
        warpgroup_faults(FENCES + PRODUCT + FINISH, "read before anything is written.*wgmma")

    def test_write_to_an_operand_in_flight(self):
        body = FILL + BARRIER + FENCES + PRODUCT
        warpgroup_faults(body + BARRIER + FILL + FINISH, "written while a wgmma in flight")

    def test_write_to_an_operand_before_all_warps_are_done(self):
        body = FILL + BARRIER + FENCES + PRODUCT + FINISH + FILL
        warpgroup_faults(body, "written and read by two warps")

    def test_results_that_are_read_too_early_are_not_there(self):
        body = FILL + BARRIER + FENCES + "mov.b32 %r60, 0;" + PRODUCT + TAKE + FINISH
        assert run_warpgroup(body).tolist() == [0] * 128

    def test_a_product_that_is_never_waited_for(self):
        warpgroup_faults(FILL + BARRIER + FENCES + PRODUCT, "wgmma is never waited for")

    def test_a_copy_into_an_operand_in_flight(self):
        copy = """
            shl.b32 %r1, %r0, 2;
            cp.async.ca.shared.global [ %r1 + 0 ], [ %rd10 + 0 ], 0x4; cp.async.commit_group;
            cp.async.wait_group 0;
        """
        warpgroup_faults(FILL + BARRIER + FENCES + PRODUCT + copy + FINISH, "a wgmma in flight")
