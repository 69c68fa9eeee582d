"""The parser, and that nothing unknown is skipped."""

import pytest

from .emulator.errors import UnsupportedError
from .emulator.kernel import Kernel
from .emulator.program import Address, Immediate, Pair, Register, Symbol, Vector, parse
from .handwritten import kernel_text


def parsed(body: str):
    """The instructions of a body, without those that the frame adds."""
    return parse(kernel_text(body, 1)).instructions[2:-1]


def test_operands_of_every_form():
    (instruction,) = parsed("@!%p1 ld.shared.v2.b32 {%r1, %r2}, [%r3+-16];  // a comment")
    assert instruction.opcode == ("ld", "shared", "v2", "b32")
    assert instruction.guard == Register("p1")
    assert instruction.guard_negated
    assert instruction.operands == (
        Vector((Register("r1"), Register("r2"))),
        Address(Register("r3"), -16),
    )
    shuffle, immediate, symbol, copy = parsed(
        """
        shfl.sync.bfly.b32 %r1|%p1, %r2, 0x1f, -1, 0f3F800000;
        mov.b64 {_, %r1}, %rd2;
        mov.b32 %r1, global_smem;
        cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 16 ], 0x10, %r2;
        """
    )
    assert shuffle.operands[0] == Pair(Register("r1"), Register("p1"))
    assert shuffle.operands[2:] == (Immediate(31), Immediate(-1), Immediate(0x3F800000))
    assert immediate.operands[0] == Vector((Symbol("_"), Register("r1")))
    assert symbol.operands[1] == Symbol("global_smem")
    assert copy.operands[1] == Address(Register("rd1"), 16)


def test_labels_parameters_and_comments():
    text = kernel_text(
        """
        .loc 1 63 0 // kernel.py:63:0
        /* several
           lines */
        $L__BB0_1:
        add.s32 %r1, %r1, 1; $L__tmp3: bra.uni $L__BB0_1;
        """,
        2,
    )
    program = parse(text)
    assert program.name == "written_by_hand"
    assert [(p.name, p.bits) for p in program.parameters] == [("arg0", 64), ("arg1", 64)]
    assert program.labels == {"$L__BB0_1": 3, "$L__tmp3": 4}
    assert program.widths["p7"] == 1
    assert program.widths["rs15"] == 16


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate.s32 %r1, %r2;",
        "add.sat.s32 %r1, %r2, %r3;",
        "add.s32 %r1, %rd2, %r3;",
        "ld.global.ca.b32 %r1, [%rd1];",
        "ld.local.b32 %r1, [%rd1];",
        "st.shared.v3.b32 [%r1], {%r2, %r3, %r4};",
        "mul.rz.f32 %r1, %r2, %r3;",
        "cvt.rz.bf16.f32 %rs1, %r1;",
        "setp.lt.mul.s32 %p1, %r1, %r2, %p2;",
        "shfl.sync.idx.b32 %r1, %r2, 0, 31, 15;",
        "bar.sync 1, 64;",
        "@%p1 bar.sync 0;",
        "bar.warp.sync 15;",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2,%r3,%r4},"
        " {%r1,%r2}, {%r1,%r2,%r3,%r4};",
        "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {%r1}, %rd1, %rd2, %r1, 0, 1, 1;",
        "ldmatrix.sync.aligned.m8n16.x1.shared.b16 {%r1}, [%r2];",
        "mbarrier.init.shared::cta.b64 [%r1], 1;",
        "atom.global.add.f32 %r1, [%rd1], %r2;",
    ],
)
def test_what_is_unknown_raises_with_its_line(line):
    program = parse(kernel_text(line, 1))
    with pytest.raises(UnsupportedError) as error:
        Kernel(program)
    assert line.split(",")[0].rstrip(";") in str(error.value)


def test_directives_and_register_kinds_that_are_unknown_raise():
    for text in (".local .b8 depot[16];", ".reg .b128 %q<2>;", ".reg .b64 %r1;"):
        with pytest.raises(UnsupportedError):
            parse(kernel_text(text, 1))
