"""Every instruction becomes one Python function, once per kernel.

Operands are resolved to rows of the register file and modifiers are checked. What is left for each
step is arithmetic on rows.
"""

from .accesses import build_load, build_store
from .async_copies import build_cp
from .bits import build_bfe, build_bitwise
from .blocks import BlockGroup, Builder, Operation, active_lanes
from .comparison import build_setp
from .elementwise import build_elementwise
from .errors import UnsupportedError
from .lanes import build_redux, build_shfl
from .matrix import build_ldmatrix, build_mma, build_stmatrix
from .moves import build_cvt, build_cvta, build_mov, build_selp
from .program import Immediate, Instruction, Pair, Symbol, Vector
from .registers import RegisterMap
from .wgmma import build_wgmma


def _build_barrier(instruction: Instruction, registers: RegisterMap) -> Operation:
    """bar.sync 0: all warps of the block. bar.warp.sync -1 joins the lanes of a warp, which run in
    lockstep here."""
    if instruction.opcode == ("bar", "warp", "sync") and instruction.operands == (Immediate(-1),):
        return lambda group: None
    if instruction.opcode != ("bar", "sync") or instruction.operands != (Immediate(0),):
        raise UnsupportedError(instruction.line)
    return lambda group: group.shared.barrier()


def _build_fence(instruction: Instruction, registers: RegisterMap) -> Operation:
    """fence.proxy.async: what was written before is visible to wgmma."""
    if instruction.opcode[1:] not in (("proxy", "async"), ("proxy", "async", "shared::cta")):
        raise UnsupportedError(instruction.line)
    return lambda group: group.shared.proxy_fence()


# Builders that write registers only; a guard keeps the old values of the other lanes.
_REGISTER_BUILDERS: dict[str, Builder] = {
    "setp": build_setp, "mov": build_mov, "selp": build_selp, "cvt": build_cvt,
    "cvta": build_cvta, "bfe": build_bfe,
    **dict.fromkeys(("prmt", "lop3", "shf", "popc", "bfi"), build_bitwise),
}  # fmt: skip
# Builders that heed or refuse a guard themselves.
_OTHER_BUILDERS: dict[str, Builder] = {
    "ld": build_load, "st": build_store, "cp": build_cp, "bar": _build_barrier,
    "fence": _build_fence, "shfl": build_shfl, "redux": build_redux, "mma": build_mma,
    "ldmatrix": build_ldmatrix, "stmatrix": build_stmatrix, "wgmma": build_wgmma,
}  # fmt: skip


def build(instruction: Instruction, registers: RegisterMap) -> Operation:
    """The function of one instruction.

    Raises:
        UnsupportedError: an unknown instruction or modifier; the message has the PTX line.
    """
    name = instruction.opcode[0]
    try:
        if name in _OTHER_BUILDERS:
            if instruction.guard is not None and name in ("bar", "fence"):
                raise UnsupportedError("a guard")
            return _OTHER_BUILDERS[name](instruction, registers)
        operation = _REGISTER_BUILDERS.get(name, build_elementwise)(instruction, registers)
        if instruction.guard is None:
            return operation
        return _predicated(operation, instruction, registers)
    except (UnsupportedError, ValueError, KeyError) as error:
        raise UnsupportedError(f"{error} in: {instruction.line}") from error


def _predicated(
    operation: Operation, instruction: Instruction, registers: RegisterMap
) -> Operation:
    """``operation`` on the lanes of the guard only."""
    result = instruction.operands[0]
    written = result.items if isinstance(result, Vector) else (result,)
    if isinstance(result, Pair):
        written = (result.first, result.second)
    kinds = {1: "p", 16: "u16", 32: "u32", 64: "u64"}
    places = [
        (kinds[registers.width(x)], registers.row(x, kinds[registers.width(x)]))
        for x in written
        if x != Symbol("_")
    ]
    lanes_of = active_lanes(instruction, registers)

    def run(group: BlockGroup) -> None:
        lanes = lanes_of(group)
        before = [group.rows[kind][row].copy() for kind, row in places]
        operation(group)
        for (kind, row), old in zip(places, before, strict=True):
            old[lanes] = group.rows[kind][row][lanes]
            group.rows[kind][row][:] = old

    return run
