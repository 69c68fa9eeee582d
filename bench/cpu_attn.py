"""Times the C++ kernel against torch's fused attention and eager attention.

    python -m bench.cpu_attn [--length 2048] [--rounds 7] [--no-memory]

One layer of Qwen2.5-VL-7B, causal. The providers of a case take turns within one run, so that all
see the same machine; medians are compared. Nothing is timed before its outputs agree with the
specification in float64. Shares are those of the machine's bare multiply-adds.
"""

import argparse
import time
from collections.abc import Callable

import torch
from avar_kernels import cpu, visual_attn_func

from . import broken_amx
from .bare_rates import bare_flops
from .measure import Table, extra_memory_mib, machine, quantiles
from .rivals import Provider, calls_of, eager_output_attentions, ours, sdpa_without_mass
from .shapes import (
    GATE,
    GATE_LENGTH,
    HEAD_DIM,
    SHAPE,
    causal_flops,
    key_types,
    make_inputs,
)

MEMORY_LENGTH = 8192


def avar_without_types(q, k, v, types):
    return visual_attn_func(q, k, v, num_types=1, causal=True, backend="cpu").out, None


def avar_shuffled(q, k, v, types):
    return ours("cpu")(q, k, v, key_types(q.shape[1], shuffled=True))


PROVIDERS: dict[str, Provider] = {
    "torch_sdpa_without_mass": sdpa_without_mass,
    "eager_output_attentions": eager_output_attentions,
    "avar_cpu": ours("cpu"),
    "avar_cpu_shuffled_types": avar_shuffled,
    "avar_cpu_without_types": avar_without_types,
}


def gate(dtype: torch.dtype) -> None:
    """Raises unless out and mass of every provider are right."""
    q, k, v, types, *_ = make_inputs(GATE_LENGTH, dtype)
    q, k, v = q.detach(), k.detach(), v.detach()
    exact = q.double(), k.double(), v.double()
    for name, run in PROVIDERS.items():
        kinds = key_types(GATE_LENGTH, shuffled=True) if run is avar_shuffled else types
        want = visual_attn_func(*exact, key_types=kinds, causal=True, backend="eager")
        out, mass = run(q, k, v, types)
        errors = [(out - want.out).abs().max()]
        if mass is not None:
            errors.append((mass - want.mass).abs().max())
        if not max(errors) < GATE[dtype]:
            raise AssertionError(f"{name} is wrong: error {max(errors):.1e} in {dtype}")


def step(run: Provider, length: int, dtype: torch.dtype, mode: str) -> Callable[[], None]:
    """One forward, or one forward and backward with cotangents of out and, if any, mass."""
    inputs = make_inputs(length, dtype)
    return calls_of(run, inputs, inputs.types, mode)[0]


def interleaved(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call in every round; the calls take turns, after one untimed round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 1):
        for name, call in steps.items():
            start = time.perf_counter()
            call()
            if index:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def compare(length: int, dtype: torch.dtype, mode: str, rounds: int, table: Table) -> None:
    """Times a case, prints it and adds its rows."""
    steps = {name: step(run, length, dtype, mode) for name, run in PROVIDERS.items()}
    times = {name: quantiles(values) for name, values in interleaved(steps, rounds).items()}
    medians = {name: values[1] for name, values in times.items()}
    torch_ms, eager_ms = (medians[name] for name in list(PROVIDERS)[:2])
    kind, bare = str(dtype)[6:], bare_flops(dtype)
    for name, values in times.items():
        case = dict(op="attention", provider=name, mode=mode, shape=SHAPE, length=length)
        flops = causal_flops(length, mode) / values[1] * 1e3
        share = None if bare is None else 100 * flops / bare
        table.add(values, share, metric="time", unit="ms", dtype=kind, **case)
        for rival, rival_ms in (("torch_sdpa", torch_ms), ("eager", eager_ms)):
            ratio = rival_ms / values[1]
            table.add(
                quantiles([ratio]), None, metric=f"speedup_over_{rival}", unit="x", dtype=kind,
                **case,
            )  # fmt: skip
        print(
            f"{kind:9s} {mode:16s} {name:24s} {values[1]:8.1f} ms"
            f" {flops / 1e9:7.0f} GFLOP/s{'' if share is None else f' ({share:3.0f} %)'}"
            f" {torch_ms / values[1]:6.2f}x torch {eager_ms / values[1]:6.2f}x eager"
        )
    untyped = medians["avar_cpu_without_types"]
    for name in ("avar_cpu", "avar_cpu_shuffled_types"):
        print(f"{kind:9s} {mode:16s} {name:24s} types cost {medians[name] / untyped - 1:+.1%}")


def memory(length: int, dtype: torch.dtype, table: Table) -> None:
    """Peak extra memory of forward and backward, outputs and gradients included, beside eager's.

    Eager's is measured at the timed length and scaled by the square, as it is L x L matrices."""
    kind = str(dtype)[6:]
    found = {}
    for name, at in (("avar_cpu", MEMORY_LENGTH), ("eager_output_attentions", length)):
        found[name] = extra_memory_mib(step(PROVIDERS[name], at, dtype, "forward_backward"))
        table.add(
            quantiles([found[name]]), None, op="attention", provider=name, mode="forward_backward",
            shape=SHAPE, length=at, dtype=kind, metric="extra_memory", unit="MiB",
        )  # fmt: skip
    eager = found["eager_output_attentions"] * (MEMORY_LENGTH / length) ** 2
    print(
        f"{kind:9s} forward_backward at L = {MEMORY_LENGTH}: {found['avar_cpu']:.0f} MiB extra,"
        f" {found['avar_cpu'] / eager:.2%} of eager's {eager:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if note := broken_amx.avoid():
        print(note)
    sets = [name for name in cpu.instruction_sets() if name]
    print(f"{SHAPE} L{options.length} D{HEAD_DIM}, {torch.get_num_threads()} threads, {sets[-1]}")
    rates = [f"{str(d)[6:]} {(bare_flops(d) or 0) / 1e9:.0f} GFLOP/s" for d in GATE]
    print(f"{machine()['device']}: bare multiply-adds {', '.join(rates)}")
    table = Table("cpu_attn")
    for dtype in GATE:
        gate(dtype)
        for mode in ("forward", "forward_backward"):
            compare(options.length, dtype, mode, options.rounds, table)
        if options.memory:
            memory(options.length, dtype, table)
    table.write()


if __name__ == "__main__":
    main()
