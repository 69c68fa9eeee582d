"""Checks of memory and control flow: each fires on a small planted fault, and not on the sound
kernel."""

import torch

from .faulty import BARRIER, LOAD, RESULT, STORE, faults, shared, sound
from .handwritten import run


class TestGlobalMemory:
    def test_access_outside_the_tensors(self):
        sound("ld.global.b32 %r1, [%rd10];")
        sound("ld.volatile.global.b32 %r1, [%rd10];")
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
