"""Exchange between the lanes of a warp: shuffles and reductions."""

import numpy as np
from numpy.typing import NDArray

from .blocks import WARP, BlockGroup, Operation
from .errors import UnsupportedError
from .program import Immediate, Instruction, Pair, Symbol, constant
from .registers import RegisterMap

_ALL = Immediate(-1), Immediate(0xFFFFFFFF)
_SHUFFLES = ("bfly", "up", "down", "idx")
_REDUCTIONS = {"add": np.add, "min": np.minimum, "max": np.maximum,
               "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}  # fmt: skip


def build_shfl(instruction: Instruction, registers: RegisterMap) -> Operation:
    """shfl.sync.mode.b32 d[|p], a, b, c, -1: p says whether the source lane is inside."""
    result, source, amount, clamp, members = instruction.operands
    _, sync, mode, kind = instruction.opcode
    known = sync == "sync" and mode in _SHUFFLES and kind == "b32" and members in _ALL
    if not known or instruction.guard is not None:
        raise UnsupportedError(instruction.line)
    value, inside = (result.first, result.second) if isinstance(result, Pair) else (result, None)
    if inside == Symbol("_"):
        inside = None
    out = registers.row(value, "u32")
    p = None if inside is None else registers.row(inside, "p")
    a, b, c = (registers.row(x, "u32") for x in (source, amount, clamp))
    if isinstance(amount, Immediate) and isinstance(clamp, Immediate) and p is None:
        lanes = np.arange(WARP)
        by, limit = (np.full(WARP, constant(x)) for x in (amount, clamp))
        other, _ = _source_lane(mode, lanes, by, limit)

        def run_constant(group: BlockGroup) -> None:
            rows = group.rows["u32"]
            rows[out].reshape(-1, WARP)[:] = rows[a].reshape(-1, WARP)[:, other]

        return run_constant

    def run(group: BlockGroup) -> None:
        rows = group.rows["u32"]
        lanes = np.arange(group.num_lanes)
        by, limit = rows[b].astype(np.int64), rows[c].astype(np.int64)
        other, exists = _source_lane(mode, lanes % WARP, by, limit)
        rows[out][:] = rows[a][lanes - lanes % WARP + other]
        if p is not None:
            group.rows["p"][p][:] = exists

    return run


def _source_lane(
    mode: str, lane: NDArray, amount: NDArray, clamp: NDArray
) -> tuple[NDArray, NDArray]:
    """(lane that is read, whether it lies inside the segment); outside a lane reads itself."""
    segment = (clamp >> 8) & 31
    limit = (lane & segment) | (clamp & 31 & ~segment)
    other = {
        "bfly": lane ^ amount,
        "up": lane - amount,
        "down": lane + amount,
        "idx": (lane & segment) | (amount & 31 & ~segment),
    }[mode]
    inside = other >= limit if mode == "up" else other <= limit
    return np.where(inside, other, lane), inside


def build_redux(instruction: Instruction, registers: RegisterMap) -> Operation:
    """redux.sync.op.type d, a, -1: every lane gets the reduction over its warp."""
    result, source, members = instruction.operands
    _, sync, name, kind = instruction.opcode
    kind = "u32" if kind == "b32" else kind
    known = sync == "sync" and name in _REDUCTIONS and kind in ("u32", "s32")
    if not known or instruction.guard is not None:
        raise UnsupportedError(instruction.line)
    out, a = registers.row(result, kind), registers.row(source, kind)
    mask = registers.row(members, "u32")
    function = _REDUCTIONS[name]

    def run(group: BlockGroup) -> None:
        if (group.rows["u32"][mask] != 0xFFFFFFFF).any():
            raise UnsupportedError(f"a part of a warp in: {instruction.line}")
        warps = group.rows[kind][a].reshape(-1, WARP)
        reduced = function.reduce(warps, axis=1, dtype=warps.dtype)
        group.rows[kind][out].reshape(-1, WARP)[:] = reduced[:, None]

    return run
