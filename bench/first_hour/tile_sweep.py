"""Times tiles of the forward, dq and dkdv kernels: candidates for the table in ``tiles.py``."""

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import torch
from avar_kernels import plan_keys, visual_attn_func
from avar_kernels.triton_backend.launchers import prepared_variant
from avar_kernels.triton_backend.tiles import LIST_BLOCK_SIZES, Tile
from avar_kernels.triton_backend.variants import Variant
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources

from ..shapes import Inputs, make_inputs
from .clock import milliseconds_in_turns
from .part_report import PartReport

DTYPE, LENGTH = torch.bfloat16, 8192
KINDS = ("forward", "dkdv", "dq")
SIZES = {  # rows, keys, warps, stages of the pipeline
    "forward": ((64, 128), (32, 64, 128), (4, 8), (2, 3, 4)),
    "dq": ((64, 128), (32, 64, 128), (4, 8), (2, 3, 4)),
    "dkdv": ((16, 32, 64), (64, 128), (4, 8), (2, 3, 4)),
}


MOST_PROCESSES = 16  # each takes half a GiB of the device


def run(report: PartReport) -> None:
    """One row per (kind, inputs, tile): milliseconds beside those of the table's tile, in turns."""
    length, rounds = (96, 2) if report.dry else (LENGTH, 10)
    levels = (True,) if report.dry else (True, False)
    if not report.dry:
        _compile_all(levels)
    for typed, kind in itertools.product(levels, KINDS):
        inputs = make_inputs(length, DTYPE)
        inputs = inputs._replace(types=plan_keys(inputs.types)) if typed else inputs
        name = "typed" if typed else "bare"
        candidates = [Tile(*sizes) for sizes in itertools.product(*SIZES[kind])]
        for tile in candidates[: 2 if report.dry else None]:
            case = {"kind": kind, "inputs": name, "tile": str(tile)}
            if not report.has(**case):
                report.add(**case, **_timed(kind, tile, inputs, typed, rounds))
                (report.folder / "tiles.txt").write_text(table_of_best(report.rows))


def _compile_all(levels: tuple[bool, ...]) -> None:
    """Fills Triton's cache on disk from all cores; one process would compile for half an hour."""
    cases = [
        (kind, Tile(*sizes), typed)
        for typed, kind in itertools.product(levels, KINDS)
        for sizes in itertools.product(*SIZES[kind])
    ]
    context = multiprocessing.get_context("spawn")  # a forked process cannot use the device
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(_compile, *zip(*cases, strict=True)))


def _compile(kind: str, tile: Tile, typed: bool) -> None:
    inputs = make_inputs(LENGTH, DTYPE)
    inputs = inputs._replace(types=plan_keys(inputs.types)) if typed else inputs
    with tile_instead(kind, tile), contextlib.suppress(OutOfResources, CompilationError):
        _call(kind, inputs, typed)()


def _timed(kind: str, tile: Tile, inputs: Inputs, typed: bool, rounds: int) -> dict[str, object]:
    def measured() -> float:
        return milliseconds_in_turns({"call": _call(kind, inputs, typed)}, rounds)["call"]

    before = measured()
    with tile_instead(kind, tile):
        try:
            ms = measured()
        except (OutOfResources, CompilationError) as error:  # the tile does not fit this chip
            return {"error": f"{type(error).__name__}: {error}"[:120]}
    after = measured()
    return {"ms": round(ms, 4), "over_table": round(ms / ((before + after) / 2), 4)}


def _call(kind: str, inputs: Inputs, typed: bool):
    q, k, v, types, grad_out, grad_mass = inputs

    def forward(q, k, v):
        if typed:
            return visual_attn_func(q, k, v, types, causal=True)
        return visual_attn_func(q, k, v, num_types=1, causal=True)

    if kind == "forward":
        return lambda: forward(q.detach(), k.detach(), v.detach())
    result = forward(q, k, v)
    outputs = (result.out, result.mass) if typed else (result.out,)
    grads = (grad_out, grad_mass)[: len(outputs)]
    return lambda: torch.autograd.grad(outputs, (q, k, v), grads, retain_graph=True)


@contextlib.contextmanager
def tile_instead(kind: str, tile: Tile) -> Iterator[None]:
    """Kernels of ``kind`` get this tile inside."""
    if kind != "dkdv" and tile.block_n not in LIST_BLOCK_SIZES:
        raise ValueError(f"block_n must be one of {LIST_BLOCK_SIZES}; got {tile.block_n}.")
    of_table, replaced = Variant.tile, kind

    def chosen(self: Variant, kind: str) -> Tile:
        return tile if kind == replaced else of_table(self, kind)

    prepared_variant.cache_clear()
    Variant.tile = chosen
    try:
        yield
    finally:
        Variant.tile = of_table
        prepared_variant.cache_clear()


def table_of_best(rows: list[dict]) -> str:
    """The three fastest tiles of every kind and set of inputs, one per line."""
    lines = []
    timed = [row for row in rows if "over_table" in row]
    groups = sorted({(row["kind"], row["inputs"]) for row in timed})
    for kind, inputs in groups:
        own = [row for row in timed if (row["kind"], row["inputs"]) == (kind, inputs)]
        own.sort(key=lambda row: row["over_table"])
        lines += [
            f"{kind:8} {inputs:6} {row['tile']:70} {row['over_table']:.3f} of the table's time"
            for row in own[:3]
        ]
    return "\n".join([*lines, ""])
