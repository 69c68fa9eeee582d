"""Every check of the emulator fires on a small planted fault, and not on the sound kernel."""

import pytest
import torch

from .emulator.errors import KernelFaultError
from .handwritten import ADDRESSES, run


def faults(body: str, match: str, **options) -> None:
    """A body must be reported with a message and the PTX line."""
    with pytest.raises(KernelFaultError, match=match):
        run(ADDRESSES + body, torch.zeros(64, dtype=torch.int32), threads=64, **options)


def sound(body: str, **options) -> torch.Tensor:
    """Runs a body on 64 threads without a report; returns the tensor."""
    numbers = torch.arange(64, dtype=torch.int32)
    run(ADDRESSES + body, numbers, threads=64, **options)
    return numbers


class TestGlobalMemory:
    def test_access_outside_the_tensors(self):
        sound("ld.global.b32 %r1, [%rd10];")
        faults("ld.global.b32 %r1, [%rd10+4];", r"outside all tensors.*ld\.global\.b32")
        faults("ld.global.b32 %r1, [%rd10+-4];", "outside all tensors")
        faults("st.global.b32 [%rd10+4096], %r0;", "outside all tensors")

    def test_lanes_that_do_not_take_part_may_have_any_address(self):
        sound("setp.lt.u32 %p1, %r0, 60; @%p1 ld.global.b32 %r1, [%rd10+16];")

    def test_misalignment(self):
        faults("ld.global.b32 %r1, [%rd10+2];", "misaligned global access of 4 bytes")
        faults("ld.global.v2.b32 {%r1, %r2}, [%rd10];", "misaligned global access of 8 bytes")

    def test_two_blocks_write_one_address(self):
        faults("st.global.b32 [%rd10], %r0;", "two blocks write one global address", blocks=2)

    def test_two_blocks_that_run_at_different_times_write_one_address(self):
        faults("st.global.b32 [%rd10], %r0;", "two blocks write one global address", blocks=100)

    def test_read_of_what_another_block_writes(self):
        body = """
            mov.u32 %r1, %ctaid.x;
            mad.wide.u32 %rd11, %r1, 128, %rd0;
            setp.lt.u32 %p1, %r0, 32;
            mul.wide.u32 %rd12, %r0, 4;
            add.s64 %rd11, %rd11, %rd12;
            @%p1 st.global.b32 [%rd11], %r0;
        """
        sound(body, blocks=2)
        faults(body + "ld.global.b32 %r2, [%rd10];", "read of what another block", blocks=2)


# Each thread stores at %r1 and looks at the place of a thread of the other warp, %r2.
SHARED = "shl.b32 %r1, %r0, 2; xor.b32 %r2, %r1, 128;"
STORE, LOAD, BARRIER = "st.shared.b32 [%r1], %r0;", "ld.shared.b32 %r3, [%r2];", "bar.sync 0;"
RESULT = "st.global.b32 [%rd10], %r3;"


def shared(*parts: str) -> str:
    return SHARED + "".join(parts)


class TestSharedMemory:
    def test_a_barrier_between_write_and_read(self):
        got = sound(shared(STORE, BARRIER, LOAD, RESULT), shared_bytes=256)
        assert got.tolist() == [i ^ 32 for i in range(64)]
        faults(shared(STORE, LOAD), "read and written by two warps", shared_bytes=256)

    def test_a_barrier_between_read_and_write(self):
        body = shared(STORE, BARRIER, LOAD)
        sound(body + BARRIER + STORE, shared_bytes=256)
        faults(body + STORE, "written and read by two warps", shared_bytes=256)

    def test_a_barrier_between_two_writes(self):
        again = "st.shared.b32 [%r2], %r0;"
        sound(shared(STORE, BARRIER, again), shared_bytes=256)
        faults(shared(STORE, again), "written by two warps", shared_bytes=256)

    def test_a_warp_may_read_what_it_wrote(self):
        own = "xor.b32 %r2, %r1, 4;"
        sound(shared(STORE, own, LOAD, RESULT), shared_bytes=256)

    def test_a_write_after_reads_by_several_warps(self):
        body = shared(STORE, BARRIER, "ld.shared.b32 %r3, [global_smem];")
        first = "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [global_smem], %r0;"
        sound(body + BARRIER + first, shared_bytes=256)
        faults(body + first, "written and read by two warps", shared_bytes=256)

    def test_lanes_store_different_values_at_one_address(self):
        sound("mov.b32 %r1, 5; st.shared.b32 [global_smem], %r1;", shared_bytes=16)
        faults("st.shared.b32 [global_smem], %r0;", "different values", shared_bytes=16)

    def test_narrow_writes_side_by_side_are_no_race(self):
        """Two warps write the halves of one word."""
        body = """
            and.b32 %r1, %r0, 31; shl.b32 %r1, %r1, 2; shr.u32 %r2, %r0, 5; shl.b32 %r2, %r2, 1;
            add.s32 %r1, %r1, %r2;
            cvt.u16.u32 %rs1, %r0;
            st.shared.b16 [%r1], %rs1;
        """
        sound(body, shared_bytes=128)

    def test_read_before_anything_is_written(self):
        faults(shared(LOAD), "read before anything is written", shared_bytes=256)

    def test_access_beyond_the_allocation(self):
        faults(shared(STORE), "beyond the 255 bytes", shared_bytes=255)
        faults("st.shared.b32 [%r0+-64], %r0;", "beyond|misaligned", shared_bytes=256)

    def test_misalignment(self):
        faults("st.shared.b32 [global_smem+2], %r0;", "misaligned shared", shared_bytes=256)
        faults("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r0];", "misaligned shared",
               shared_bytes=256)  # fmt: skip


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


class TestControlFlow:
    LOOP = """
        mov.u32 %r1, %ctaid.x;
        mov.b32 %r3, 0;
        $L__BB0_1:
        setp.ge.u32 %p1, %r3, {count};
        @%p1 bra $L__BB0_2;
        add.s32 %r3, %r3, 1;
        bra.uni $L__BB0_1;
        $L__BB0_2:
    """

    def test_lanes_that_disagree_on_a_branch(self):
        sound(self.LOOP.format(count=5) + RESULT)
        faults(self.LOOP.format(count="%r0"), "disagree on a branch")

    def test_blocks_part_and_each_goes_its_own_way(self):
        """Block b goes round b times and writes its row; the emulator runs all blocks at once until
        they part."""
        body = (
            self.LOOP.format(count="%r1")
            + """
            mad.lo.s32 %r4, %r1, 32, %r0;
            mul.wide.u32 %rd9, %r4, 4;
            add.s64 %rd10, %rd0, %rd9;
            st.global.b32 [%rd10], %r3;
        """
        )
        rows = torch.full((7, 32), -1, dtype=torch.int32)
        run(body, rows, threads=32, blocks=7)
        assert rows.tolist() == [[b] * 32 for b in range(7)]

    def test_copies_and_memory_follow_their_blocks(self):
        """Blocks part while copies are in flight."""
        body = (
            """
            mov.u32 %r1, %ctaid.x;
            mad.lo.s32 %r4, %r1, 32, %r0;
            mul.wide.u32 %rd9, %r4, 4;
            add.s64 %rd10, %rd0, %rd9;
            shl.b32 %r5, %r0, 2;
            st.shared.b32 [%r5+128], %r1;
            cp.async.ca.shared.global [ %r5 + 0 ], [ %rd10 + 0 ], 0x4;
            cp.async.commit_group;
        """
            + self.LOOP.format(count="%r1")
            + """
            cp.async.wait_group 0;
            ld.shared.b32 %r6, [%r5];
            ld.shared.b32 %r7, [%r5+128];
            mad.lo.s32 %r6, %r7, 1000, %r6;
            st.global.b32 [%rd10], %r6;
        """
        )
        rows = torch.arange(5 * 32, dtype=torch.int32).reshape(5, 32)
        want = rows + 1000 * torch.arange(5)[:, None]
        run(body, rows, threads=32, blocks=5, shared_bytes=256)
        assert torch.equal(rows, want.int())
