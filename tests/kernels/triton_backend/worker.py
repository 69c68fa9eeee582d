"""Runs in a child process: cases in Triton's interpreter, or resources of compiled kernels.

    python worker.py interpret CASE...              (TRITON_INTERPRET=1 in the environment)
    python worker.py imitate ARCH:DTYPE:CASE...     (likewise; see ``imitation``)
    python worker.py compile JSON...                (see ``compile_all``)

One JSON object per line on stdout. ``children`` says why these run in a process of their own.
"""

import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

# Rows whose errors are judged together, so that one wrong row cannot hide in a large tensor.
ROW_BLOCK = 16
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def interpret(names: list[str]) -> None:
    """Prints what is wrong with any tensor of every named case."""
    from cases import CASES

    prepare()
    for name in names:
        _report(name, name, CASES[name])


def imitate(requests: list[str]) -> None:
    """What is wrong with device cases, with the tiles and element types of a chip."""
    import imitation
    from cases import DEVICE_CASES

    prepare()
    for request in requests:
        arch, dtype, name = request.split(":")
        imitation.imitate(arch)
        _report(request, name, dataclasses.replace(DEVICE_CASES[name], dtype=dtype))


def prepare() -> None:
    """One thread, and NaN wherever memory is allocated."""
    from avar_kernels.triton_backend import launch

    torch.set_num_threads(1)
    _poison_allocations()
    # Then the heads of a group are in one share in some cases, and in even or uneven shares in
    # others.
    launch.multiprocessors = lambda device: 1


def _report(key: str, name: str, case: Any) -> None:
    try:
        findings = run_case(name, case)
    except Exception:
        findings = [traceback.format_exc()]
    print(json.dumps({"case": key, "findings": findings}), flush=True)


def run_case(name: str, case: Any) -> list[str]:
    """What is wrong with any tensor of a case."""
    from cases import make_inputs

    return run_call(*make_inputs(name, case), case.dtype, case.twice, case.planned)


def run_call(
    x: dict[str, torch.Tensor | None],
    options: dict,
    dtype: str,
    twice: bool = False,
    planned: bool = False,
) -> list[str]:
    """What is wrong with any output or gradient of a call; see ``make_inputs`` for its parts."""
    from avar_kernels import triton_backend
    from avar_kernels.types import AttnInputs, AttnOutput, AttnParams, PackedLengths
    from oracle import attention_and_gradients

    packed = None if options["packed"] is None else PackedLengths(*options["packed"])
    tensors = [x[key] for key in ("q", "k", "v", "key_types", "type_bias", "type_scale")]
    inputs = AttnInputs(*tensors, packed)
    if planned:
        inputs = inputs._replace(blocks=sorted_blocks(inputs, options["num_types"]))
    params = AttnParams(
        options["num_types"], options["softmax_scale"], options["causal"], options["window"]
    )
    grads = AttnOutput(*(x[key] for key in ("dout", "dmass", "dlse")))

    def run() -> dict[str, torch.Tensor]:
        outputs = triton_backend.forward(inputs, params)
        gradients = triton_backend.backward(grads, inputs, outputs, params)
        names = ("out", "mass", "lse", "dq", "dk", "dv", "dtype_bias", "dtype_scale")
        return dict(zip(names, (*outputs, *gradients), strict=True))

    got = run()
    findings = []
    if twice:
        again = run()
        findings += [
            f"{key} differs between two runs"
            for key in got
            if not torch.equal(got[key], again[key])
        ]
    for table in ("type_bias", "type_scale"):
        if x[table] is None:
            assert got.pop(f"d{table}") is None
    storage = x["q"].dtype
    want = attention_and_gradients(x, options, torch.float64, storage)
    plain = attention_and_gradients(x, options, torch.float32, storage)
    for key, value in got.items():
        expected = torch.float32 if key in ("mass", "lse", "dtype_bias", "dtype_scale") else storage
        assert value.dtype == expected, (key, value.dtype)
        assert value.shape == want[key].shape, (key, value.shape)
        findings += _judge(key, value, want, plain, dtype)
    return findings


def sorted_blocks(inputs: Any, num_types: int) -> torch.Tensor:
    """The key blocks of a packed call as a plan holds them."""
    from avar_kernels.triton_backend.block_lists import ListsLayout, sort_for_every_size

    layout = ListsLayout.of(
        inputs.key_types, inputs.packed.cu_seqlens_k, inputs.packed.max_seqlen_k, num_types
    )
    return sort_for_every_size(inputs.key_types, inputs.packed.cu_seqlens_k, layout)


def _judge(
    key: str,
    got: torch.Tensor,
    oracle: dict[str, torch.Tensor],
    plain: dict[str, torch.Tensor],
    dtype: str,
) -> list[str]:
    """What is wrong with ``got``: |got - oracle| must be at most 2 |plain - oracle| + band in every
    block of rows.

    The band is what rounding may do where the reference happens to be exact. Every result is a sum
    of products of rounded factors. With u the unit roundoff of the inputs' dtype, that allows 4 u
    times its size, the sum of the absolute terms. Logits are float32 in any dtype. They are rounded
    three times (as a product, in the change to base 2, in the difference from lse), each time by up
    to 2^-24 times the largest logit. That is a relative error of P, and so of all results. lse is
    computed from exact inputs: its u is float32's.

    The maximum and the mean over a block must each keep to the budget of the same statistic.
    """
    want = oracle[key]
    if got.numel() == 0:
        return []
    if (
        not torch.equal(got.isneginf(), want.isneginf())
        or not torch.isfinite(got[~want.isneginf()]).all()
    ):
        return [f"{key}: NaN or infinities in other places than the oracle's"]
    unit = UNIT_ROUNDOFF["float32" if key == "lse" else dtype]
    relative = 4 * unit
    if key != "lse":
        relative += 3 * UNIT_ROUNDOFF["float32"] * oracle["largest_logit"].item()
    clean = [
        torch.where(want.isneginf(), 0.0, t.double())
        for t in (got, want, plain[key], oracle[f"{key}_size"])
    ]
    rows = -1 if key == "lse" else -3 if want.dim() > 2 else 0
    blocks = [t.movedim(rows, -1).split(ROW_BLOCK, -1) for t in clean]
    findings = []
    for index, (value, truth, reference, size) in enumerate(zip(*blocks, strict=True)):
        error, allowed = (value - truth).abs(), (reference - truth).abs()
        for kind, reduce in (("max", torch.max), ("mean", torch.mean)):
            found, budget = (
                reduce(error).item(),
                2 * reduce(allowed).item() + relative * reduce(size).item(),
            )
            if found > budget:
                findings.append(
                    f"{key}: {kind} error {found:.3e} over budget {budget:.3e} "
                    f"in rows {index * ROW_BLOCK}.., "
                    f"worst element {error.argmax().item()} of shape {tuple(error.shape)}"
                )
    return findings


def _poison_allocations() -> None:
    """Makes torch.empty return NaN, so that an element that was never written shows."""
    empty = torch.empty

    def poisoned(*args, **kwargs) -> torch.Tensor:
        x = empty(*args, **kwargs)
        return x.fill_(float("nan")) if x.is_floating_point() else x.fill_(7)

    torch.empty = poisoned


def compile_all(requests: list[str]) -> None:
    """Resources of kernels given as JSON: {"kind", **arguments of make_variant}, perhaps with a
    "tile" instead of the table's, and "shares" as in ``aot.compile_kernel``."""
    from avar_kernels.triton_backend import aot
    from avar_kernels.triton_backend.tiles import Tile

    for text in requests:
        request = json.loads(text)
        kind = request.pop("kind")
        sizes, shares = request.pop("tile", None), request.pop("shares", False)
        variant = aot.make_variant(**request)
        if sizes is not None:  # instead of the table's
            tile = Tile(*sizes)
            object.__setattr__(variant, "tile", lambda kind, tile=tile: tile)
        try:
            used = aot.compile_kernel(kind, variant, request["dtype"], shares)
            loop = used.main_loop
            result = {
                "registers": used.registers,
                "spill_bytes": used.spill_bytes,
                "shared_bytes": used.shared_bytes,
                "tensor_memory_columns": used.tensor_memory_columns,
                "instructions": loop and loop.instructions,
                "loads_in_flight": loop and loop.loads_in_flight,
                "wrong_products": used.wrong_products,
            }
        except Exception:
            result = {"error": traceback.format_exc()[-2000:]}
        print(json.dumps({"request": text, **result}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    commands = {"interpret": interpret, "imitate": imitate, "compile": compile_all}
    commands[sys.argv[1]](sys.argv[2:])
