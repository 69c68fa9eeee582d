"""Machine code with descriptors that are right, and with those that are not."""

import pytest
from avar_kernels.triton_backend.descriptors import wrong_products_of

PRODUCT = "HGMMA.64x16x16.F32 R88, R28, gdesc[UR44].tnspB, R88"  # reads UR46 and UR47
BOTH_IN_MEMORY = "HGMMA.64x64x16.F32 R24, gdesc[UR44], R24, gsb0"  # reads UR44 to UR47
ADDRESS = (
    "S2UR UR4, SR_CgaCtaId", "ULEA UR30, UR4, UR5, 0x18", "USHF.R.U32.HI UR7, URZ, 0x4, UR30",
)  # fmt: skip
DESCRIPTOR = (*ADDRESS, "UIADD3 UR46, UP1, UR7, 0x20, URZ", "UMOV UR47, 0x40000040")
RIGHT = {
    "constants": (*DESCRIPTOR, PRODUCT),
    "argument before": ("ULDC UR46, c[0x0][0x210]", *DESCRIPTOR, PRODUCT),
    "argument beside": ("ULDC.64 UR44, c[0x0][0x210]", *DESCRIPTOR, PRODUCT),
    "the launch's own constants": (*DESCRIPTOR, "ULDC.64 UR46, c[0x0][0x118]", PRODUCT),
    "loop counter": (
        *DESCRIPTOR, ".L_x_1:", PRODUCT, "UIADD3 UR46, UR46, 0x80, URZ", "@P0 BRA `(.L_x_1)",
    ),
    "spilled": (*DESCRIPTOR, "STL [R1+0x4], R2", "LDL R3, [R1+0x4]", "R2UR UR46, R3", PRODUCT),
    "spilled over an argument": (
        "LDC R5, c[0x0][0x210]", "STL [R1], R5", *DESCRIPTOR, "STL [R1], R2", "LDL R3, [R1]",
        "R2UR UR46, R3", PRODUCT,
    ),
    "after the end": (*DESCRIPTOR, "BRA `(.L_x_1)", "ULDC UR46, c[0x0][0x210]", ".L_x_1:", PRODUCT),
}  # fmt: skip
WRONG = {
    "argument": (*DESCRIPTOR, "ULDC UR46, c[0x0][0x210]", PRODUCT),
    "upper half": (*DESCRIPTOR, "ULDC UR47, c[0x0][0x210]", PRODUCT),
    "left operand": (*DESCRIPTOR, "ULDC UR44, c[0x0][0x210]", BOTH_IN_MEMORY),
    "wide load of an argument": (*DESCRIPTOR, "ULDC.64 UR46, c[0x0][0x210]", PRODUCT),
    "made from an argument": (
        "ULDC UR9, c[0x0][0x2a0]", *DESCRIPTOR, "UIADD3 UR46, UP0, UR9, UR46, URZ", PRODUCT,
    ),
    "loaded data": ("LDG.E R3, desc[UR12][R24.64]", *DESCRIPTOR, "R2UR UR46, R3", PRODUCT),
    "in the next round": (
        *DESCRIPTOR, ".L_x_1:", PRODUCT, "ULDC UR46, c[0x0][0x210]", "@P0 BRA `(.L_x_1)", "EXIT",
    ),
    "on one of two ways": (
        *DESCRIPTOR, "@P0 BRA `(.L_x_1)", "ULDC UR46, c[0x0][0x210]", ".L_x_1:", PRODUCT,
    ),
    "overwritten only perhaps": (
        "ULDC UR46, c[0x0][0x210]", *ADDRESS, "@UP0 UMOV UR46, UR7", "UMOV UR47, 0x0", PRODUCT,
    ),
    "behind a predicate": (
        *DESCRIPTOR, "ULDC UR9, c[0x0][0x210]", "ULOP3.LUT UP0, UR46, UR9, 0x1, URZ, 0xc0, !UPT",
        PRODUCT,
    ),
    "of another thread": (
        *DESCRIPTOR, "LDC R5, c[0x0][0x210]", "SHFL.IDX PT, R3, R5, RZ, 0x1f", "R2UR UR46, R3",
        PRODUCT,
    ),
    "reduced": (*DESCRIPTOR, "LDC R3, c[0x0][0x210]", "REDUX.SUM UR46, R3", PRODUCT),
    "one of four loaded": (*DESCRIPTOR, "LDSM.16.M88.4 R4, [R20]", "R2UR UR46, R7", PRODUCT),
    "upper half of an addend": (
        "ULDC.64 UR8, c[0x0][0x210]", "UMOV UR8, 0x10", *DESCRIPTOR,
        "UIADD3.64 UR46, UR8, 0x80, URZ", PRODUCT,
    ),
    "a product's result": (
        *DESCRIPTOR, "HGMMA.64x16x16.F32 R88, R28, gdesc[UR44].tnspB, R88", "R2UR UR46, R90",
        "HGMMA.64x16x16.F32 R96, R28, gdesc[UR44].tnspB, R96",
    ),
    "spilled elsewhere": (*DESCRIPTOR, "LDL R3, [R9]", "R2UR UR46, R3", PRODUCT),
    "spilled": (
        "LDC.64 R4, c[0x0][0x210]", "STL.64 [R1], R4", *DESCRIPTOR, "LDL R3, [R1+0x4]",
        "R2UR UR46, R3", PRODUCT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_descriptors(name):
    assert wrong_products_of([*RIGHT[name]]) == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_descriptors(name):
    assert len(wrong_products_of([*WRONG[name]])) == 1
