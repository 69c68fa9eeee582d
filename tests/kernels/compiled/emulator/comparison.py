"""setp: comparisons, each lane for itself."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedError
from .program import Instruction, Pair, Symbol
from .registers import RegisterMap

Function = Callable[..., Any]
_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
    "hs": np.greater_equal,
}  # fmt: skip
_COMBINE = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _comparison(name: str, kind: str) -> Function:
    """Float: false if an operand is NaN; names that end in u are true then."""
    if kind[0] != "f":
        return _COMPARE[name]
    if name in ("nan", "num"):
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == (name == "nan")
    unordered = len(name) == 3 and name.endswith("u")
    compare = _COMPARE[name[:2]]

    def run(a: NDArray, b: NDArray) -> NDArray:
        either_nan = np.isnan(a) | np.isnan(b)
        return compare(a, b) | either_nan if unordered else compare(a, b) & ~either_nan

    return run


def build_setp(instruction: Instruction, registers: RegisterMap) -> Any:
    """setp.CMP[.BOOL][.ftz].type p[|q], a, b[, c]: q is the opposite of the comparison."""
    _, name, *middle, kind = instruction.opcode
    kind = "u" + kind[1:] if kind[0] == "b" else kind
    combine = _COMBINE[middle.pop(0)] if middle and middle[0] in _COMBINE else None
    if middle or (kind[0] != "f" and name not in _COMPARE):
        raise UnsupportedError(instruction.line)
    compare = _comparison(name, kind)
    result, first, second, *third = instruction.operands
    a, b = registers.row(first, kind), registers.row(second, kind)
    both = isinstance(result, Pair)
    results = [result.first, result.second] if both else [result]
    out = [None if p == Symbol("_") else registers.row(p, "p") for p in results]
    c = registers.row(third[0], "p") if combine else None

    def run(group: Any) -> None:
        rows = group.rows
        holds = compare(rows[kind][a], rows[kind][b])
        predicates = rows["p"]
        for row, truth in zip(out, (holds, ~holds) if both else (holds,), strict=True):
            if row is not None:
                predicates[row][:] = combine(truth, predicates[c]) if combine else truth

    if combine is None and not both and kind[0] != "f":
        only = out[0]
        return lambda group: compare(
            group.rows[kind][a], group.rows[kind][b], group.rows["p"][only]
        )
    return run
