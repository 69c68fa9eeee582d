"""Forward and backward of the operation beside its rivals, in turns, by device events."""

import functools
from collections.abc import Callable
from functools import partial

import torch
from avar_kernels import AttnOutput, KeyPlan, plan_keys, visual_attn_func
from torch import Tensor

from ..rivals import PROVIDERS, Provider
from ..shapes import GATE, GATE_LENGTH, LENGTHS, Inputs, causal_flops, make_inputs
from .clock import milliseconds_in_turns, percent_of_matmul
from .part_report import PartReport

RIVALS = (
    "sdpa_without_mass", "cudnn_without_mass", "flash_attn_2", "flash_attn_3", "flash_attn_4",
    "flex_attention_without_mass",
)  # fmt: skip
DTYPE = torch.bfloat16


def run(report: PartReport) -> None:
    """One row per (mode, length, provider): milliseconds, TFLOP/s, ratio to torch's attention."""
    lengths, rounds = ((GATE_LENGTH,), 1) if report.dry else (LENGTHS, 30)
    providers = {"avar, types": _ours, "avar, types shuffled": _ours, "avar, no types": _untyped}
    dry_rivals = ("sdpa_without_mass",)
    for name in dry_rivals if report.dry else RIVALS:
        if name in PROVIDERS:
            providers[name] = PROVIDERS[name]
    providers = {name: run for name, run in providers.items() if _passes_gate(report, name, run)}
    for length in lengths:
        for mode in ("forward", "backward"):
            if report.has(mode=mode, length=length):
                continue
            calls = {
                name: _call(run, _inputs(length, name), mode) for name, run in providers.items()
            }
            times = milliseconds_in_turns(calls, rounds)
            for name, ms in times.items():
                tflops = causal_flops(length, mode) / ms / 1e9
                report.add(
                    mode=mode, length=length, provider=name, ms=round(ms, 4),
                    tflops=round(tflops, 1),
                    percent_of_matmul=percent_of_matmul(causal_flops(length, mode), ms, DTYPE),
                    over_torch=round(ms / times["sdpa_without_mass"], 3),
                )  # fmt: skip


def _ours(q: Tensor, k: Tensor, v: Tensor, plan: KeyPlan) -> tuple[Tensor, Tensor]:
    result = visual_attn_func(q, k, v, plan, causal=True)
    return result.out, result.mass


def _untyped(q: Tensor, k: Tensor, v: Tensor, plan: KeyPlan) -> tuple[Tensor, None]:
    return visual_attn_func(q, k, v, num_types=1, causal=True).out, None


def _inputs(length: int, name: str) -> Inputs:
    """Key types as a plan, which a model makes once for all of its layers."""
    inputs = make_inputs(length, DTYPE, shuffled="shuffled" in name)
    return inputs._replace(types=plan_keys(inputs.types)) if "avar" in name else inputs


def _call(provider: Provider, inputs: Inputs, mode: str) -> Callable[[], object]:
    q, k, v, types, grad_out, grad_mass = inputs
    if mode == "forward":
        return partial(provider, q.detach(), k.detach(), v.detach(), types)
    out, mass = provider(q, k, v, types)
    outputs, grads = ([out], [grad_out]) if mass is None else ([out, mass], [grad_out, grad_mass])
    return lambda: torch.autograd.grad(outputs, (q, k, v), grads, retain_graph=True)


@functools.cache
def _wanted(shuffled: bool) -> AttnOutput:
    """The specification's result for the gate's inputs."""
    q, k, v, types, *_ = (x.detach().cpu() for x in make_inputs(GATE_LENGTH, DTYPE, shuffled))
    q, k, v = (x.double() for x in (q, k, v))
    return visual_attn_func(q, k, v, types, causal=True, backend="eager")


def _passes_gate(report: PartReport, name: str, provider: Provider) -> bool:
    """Nothing is timed that does not agree with the specification. A rival may fail to run."""
    inputs = _inputs(GATE_LENGTH, name)
    q, k, v = (x.detach() for x in inputs[:3])
    want = _wanted("shuffled" in name)
    try:
        out, mass = provider(q, k, v, inputs.types)
        _call(provider, inputs, "backward")()
    except Exception as error:
        if name.startswith("avar"):
            raise
        report.add(mode="gate", provider=name, error=f"{type(error).__name__}: {error}"[:200])
        return False
    assert (out.double().cpu() - want.out).abs().max() < GATE[DTYPE], name
    assert mass is None or (mass.double().cpu() - want.mass).abs().max() < GATE[DTYPE], name
    return True
