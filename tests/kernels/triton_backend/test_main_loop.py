"""The reading of a compiled main loop, on assembly texts with known contents."""

import subprocess

import pytest
from avar_kernels.triton_backend import main_loop
from avar_kernels.triton_backend.main_loop import Product

PTX = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 p)
{
    .reg .pred %p<2>; .reg .b32 %r<20>; .reg .f32 %f<20>; .reg .b64 %rd<4>;
    .shared .align 16 .b8 tile[1024];
    ld.param.u64 %rd1, [p];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, tile;
    mov.u32 %r2, 0;
    ld.global.u32 %r3, [%rd2];
    ld.global.f32 %f1, [%rd2 + 4];
    mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;
$outer:
    ex2.approx.ftz.f32 %f4, %f4;
    mov.u32 %r4, 0;
$inner:
    .pragma "nounroll";
    cp.async.cg.shared.global [%r1], [%rd2], 16;
    cp.async.commit_group;
    cp.async.wait_group 2;
    ld.shared.u32 %r5, [%r1];
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4},
        {%r5, %r5, %r5, %r5}, {%r5, %r5}, {%f1, %f2, %f3, %f4};
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4},
        {%r5, %r3, %r5, %r3}, {%r5, %r5}, {%f1, %f2, %f3, %f4};
    ex2.approx.ftz.f32 %f1, %f1;
    { bra.uni skip; skip: }
    cp.async.wait_group 1;
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, %r3;
    @%p1 bra $inner;
    add.u32 %r2, %r2, 1;
    setp.lt.u32 %p1, %r2, %r3;
    @%p1 bra $outer;
    st.global.f32 [%rd2], %f1;
    st.global.f32 [%rd2 + 4], %f4;
    ret;
}
"""
AMD = """
.LBB0_1:   ; the outer loop
    global_load_dwordx4 v[0:3], v[4:5], off
    s_waitcnt vmcnt(0)
.LBB0_2:
    global_load_dwordx4 v[0:3], v[4:5], off
    global_load_dwordx4 v[6:9], v[4:5], off ; v_mfma_f32_32x32x8_bf16 in a remark
    v_exp_f32_e32 v1, v1
    s_waitcnt vmcnt({covered}) lgkmcnt(0)
    v_mfma_f32_32x32x8_bf16 v[0:15], v[16:17], v[18:19], v[0:15]
    v_mfma_f32_16x16x16_bf16 v[0:3], v[16:17], v[18:19], v[0:3]
    buffer_load_dword v0, v1, s[0:3], 0 offen
    s_cbranch_scc1 .LBB0_2
    s_cbranch_scc1 .LBB0_1
"""


def test_the_inner_loop_of_a_cubin_is_read(tmp_path):
    source, cubin = tmp_path / "kernel.ptx", tmp_path / "kernel.cubin"
    source.write_text(PTX)
    tool = main_loop.NVIDIA_TOOLS / "ptxas"
    subprocess.run([tool, "--gpu-name=sm_80", source, "-o", cubin], check=True)
    found = main_loop.of_nvidia(cubin.read_bytes(), PTX)
    assert found is not None
    assert found.products == {Product(16, 8, 16, left_in_registers=True): 2}
    assert (found.special, found.spilled, found.loads_in_flight) == (1, 0, 1)
    assert 10 <= found.instructions <= 40


@pytest.mark.parametrize(("covered", "in_flight"), [(0, 1), (1, 2), (5, 3)])
def test_amd_loads_in_flight_are_those_past_the_last_wait(covered, in_flight):
    found = main_loop.of_amd(AMD.format(covered=covered))
    assert found is not None
    assert found.loads_in_flight == in_flight
    assert found.products == {Product(32, 32, 8): 1, Product(16, 16, 16): 1}
    assert (found.special, found.instructions) == (1, 8)


def test_a_kernel_without_matrix_products_has_no_main_loop():
    assert (
        main_loop.of_amd(".LBB0_1:\n    v_add_f32 v0, v0, v0\n    s_cbranch_scc1 .LBB0_1\n") is None
    )


@pytest.mark.parametrize(
    ("line", "product"),
    [
        ("HGMMA.64x64x16.F32.BF16 R88, gdesc[UR16], R88", Product(64, 64, 16, False, 4)),
        ("HGMMA.64x128x16.F32 R24, R4, gdesc[UR8].tnspB, R24", Product(64, 128, 16, True, 4)),
        ("HMMA.1688.F32.TF32 R4, R8, R12, R4", Product(16, 8, 8, True, 1)),
        ("UTCHMMA gdesc[UR24], gdesc[UR22], tmem[UR10], tmem[UR4], idesc[UR5], !UPT", None),
    ],
)
def test_shapes_of_matrix_instructions(line, product):
    assert main_loop._product(line) == product


def test_shapes_of_sm_100_come_from_the_descriptor():
    loop = [
        "@%p1 tcgen05.mma.cta_group::1.kind::f16 [ %r1 + 0 ], %rd1, %rd2, %r9, %p2;",
        "@%p1 tcgen05.mma.cta_group::1.kind::f16 [ %r1 + 0 ], [ %r3 + 8 ], %rd2, %r9, %p2;",
        "tcgen05.wait::ld.sync.aligned;",
    ]
    descriptor = 8 << 24 | 16 << 17 | 0x490  # M = 128, N = 128, dtypes below
    found = main_loop._tcgen05_products(loop, f"mov.b32 \t%r9, {descriptor};\n")
    from_shared, from_tensor_memory = (
        Product(128, 128, 16, registers, warps=0) for registers in (False, True)
    )
    assert found == {from_shared: 1, from_tensor_memory: 1}
