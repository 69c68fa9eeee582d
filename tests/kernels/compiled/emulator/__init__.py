"""Runs the PTX that Triton compiles for a chip, without the chip.

The model. A program of the grid is one block of threads, here always called a block. All lanes of
an instruction run at once, as one numpy operation; blocks whose control flow agrees share it too
(``blocks.BlockGroup``). Registers are rows of arrays with one column per lane. Threads of a warp
run in lockstep. Between two barriers the warps of a block may run in any order: the emulator runs
one order, and reports what would depend on it.

What is reported, as a ``KernelFaultError`` with the PTX line:
    global memory   access outside the tensors of the launch, misaligned access, two blocks that
                    write one address, a block that reads what another one wrote
    shared memory   access beyond the allocation, misaligned access, read before written; read and
                    write, or two writes, of one address by different warps without a barrier
                    between them
    cp.async        data lands when it is waited for, the latest moment that the chip allows. Until
                    then nobody may read or write there. Copies that are never waited for
    wgmma           operands are read when the result is waited for. Until then nobody may write
                    there. Operands stored without a fence.proxy.async; products that are never
                    waited for
    control flow    a branch on which the lanes of a block disagree
Outputs that are never written show too: tests fill fresh memory with NaN.
No instruction is skipped: an unknown one, or an unknown modifier, raises ``UnsupportedError``.

What is not modeled: time, the order of lanes inside a warp (bar.warp.sync does nothing), caches,
wgmma.fence, fences between cp.async and wgmma, tcgen05, TMA and mbarrier. Approximate functions
(ex2, lg2, rcp, div.full) are computed to the last place or so. Sums of matrix products are rounded
to float32 in numpy's order.

    program         PTX text to instructions
    registers       rows of numbers; which row an operand is
    instructions    each instruction to one Python function; the functions are in elementwise,
                    comparison, moves, bits, lanes, accesses, async_copies, matrix and wgmma
    blocks          the state of a group of blocks, with global_memory and shared_memory
    kernel          a program as pieces between branches; groups run through it and part
    launch          runs a grid
    driver          the stand-in for Triton's driver
"""
