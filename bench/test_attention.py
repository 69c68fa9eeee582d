"""Times forward, backward and both of the operation and its rivals, with peak memory.

One layer of Qwen2.5-VL-7B (28 query heads on 4, D = 128), causal. No provider is timed before its
outputs agree with the specification in float64.
"""

import functools

import pytest
from avar_kernels import visual_attn_func

from .measure import extra_memory_mib, peak_flops
from .rivals import PROVIDERS, calls, keys_for, why_not
from .shapes import DTYPES, GATE, GATE_LENGTH, LENGTHS, SHAPE, causal_flops, make_inputs

ROUNDS = 7
ANCHOR = "sdpa_without_mass"  # run in turns with every other provider


@functools.cache
def wanted(dtype, shuffled):
    q, k, v, types, *_ = make_inputs(GATE_LENGTH, dtype, shuffled)
    q, k, v = (x.detach().double().cpu() for x in (q, k, v))
    return visual_attn_func(q, k, v, types.cpu(), causal=True, backend="eager")


def gate(name, dtype, shuffled):
    q, k, v, types, *_ = make_inputs(GATE_LENGTH, dtype, shuffled)
    out, mass = PROVIDERS[name](q.detach(), k.detach(), v.detach(), keys_for(name, types))
    want = wanted(dtype, shuffled)
    assert (out.double().cpu() - want.out).abs().max() < GATE[dtype]
    assert mass is None or (mass.double().cpu() - want.mass).abs().max() < GATE[dtype]


def cases():
    """Rivals of one shape next to one another, so that they see the same machine."""
    for dtype in DTYPES:
        for mode in ("forward", "backward", "forward_backward"):
            for length in LENGTHS:
                for name in PROVIDERS:
                    reason = why_not(name, length, mode)
                    marks = [pytest.mark.skip(reason=f"{name}: {reason}")] if reason else []
                    shuffles = (False, True) if name.startswith("avar") else (False,)
                    for shuffled in shuffles if length == LENGTHS[-1] else (False,):
                        case = f"{mode}-{length}-{str(dtype)[6:]}-{name}{'-shuffled' * shuffled}"
                        values = (name, length, mode, dtype, shuffled)
                        yield pytest.param(*values, id=case, marks=marks)


@pytest.mark.parametrize(("provider", "length", "mode", "dtype", "shuffled"), list(cases()))
def test_attention(record, table, provider, length, mode, dtype, shuffled):
    gate(provider, dtype, shuffled)
    inputs = make_inputs(length, dtype, shuffled)
    timed, setup = calls(provider, inputs, mode)
    anchor = None if provider == ANCHOR else calls(ANCHOR, inputs, mode)
    case = dict(
        op="attention", provider=provider + ("_shuffled" if shuffled else ""), mode=mode,
        shape=SHAPE, length=length, dtype=str(dtype)[6:],
    )  # fmt: skip
    rounds = ROUNDS if length < LENGTHS[-1] else 5
    work = causal_flops(length, mode)
    record(
        timed, rounds, work, peak_flops(dtype), setup=setup, anchor=anchor, graph=setup is None,
        **case,
    )  # fmt: skip
    if mode == "forward_backward":
        memory = extra_memory_mib(timed)
        table.add((memory,) * 3, None, metric="extra_memory", unit="MiB", **case)
