"""Real kernels with one barrier, wait or fence removed: the emulator must notice, or the numbers
must change.

Some removals are not noticed, for a reason:
    UNREACHED       this call never comes to the instruction
    NOTHING_WAITED  a wait that never finds anything in flight
    REDUNDANT       another instruction does the same work in this call. The emulator proves it: it
                    compares all accesses of different warps between two barriers in whatever order
                    they ran, and asynchronous operations last as long as they may. So
                    a barrier: no two warps touch one address of the merged interval of which one
                    writes it;
                    a wait: a later one comes before anyone looks at what is waited for;
                    a fence: another one stands between every store and the wgmma that reads it, or
                    only copies come before it, for which the emulator asks no fence.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from avar_kernels import triton_backend
from avar_kernels.types import AttnInputs, AttnOutput, AttnParams
from torch import Tensor

from ..triton_backend.cases import Case, make_inputs
from .emulator import driver
from .emulator.blocks import BlockGroup, Operation
from .emulator.errors import KernelFaultError
from .emulator.kernel import Kernel
from .emulator.launch import Launch
from .emulator.program import Instruction, Program, constant

UNREACHED = "not noticed: unreached"
NOTHING_WAITED = "not noticed: nothing waited for"
REDUNDANT = "not noticed: redundant"
KERNELS = {
    "forward": "visual_attn_fwd_kernel",
    "dq": "visual_attn_bwd_dq_kernel",
    "dkdv": "visual_attn_bwd_dkdv_kernel",
}
_FAULTS = (("bar", "sync"), ("cp", "async", "wait_group"), ("wgmma", "wait_group"),
           ("fence", "proxy", "async"))  # fmt: skip
# Every loop goes round several times: plain blocks of two types, general and ragged blocks.
_CASE = Case(
    rows=400, keys=400, heads=1, head_dim=128, value_dim=128, dtype="bfloat16", causal=True,
    types="left", run=256, bias=0, scale=0,
)  # fmt: skip


def outcomes(kernel: str) -> dict[str, str]:
    """{index of the removed instruction and its text: what was noticed, or why nothing is}."""
    launch, before, after, waited = _recorded(KERNELS[kernel])
    program = launch.kernel.program
    found: dict[str, str] = {}
    for index, instruction in enumerate(program.instructions):
        if not _is_fault(instruction):
            continue
        if not launch.kernel.visits(instruction):
            outcome = UNREACHED
        elif not waited.get(index, True):
            outcome = NOTHING_WAITED
        else:
            faulty = dataclasses.replace(launch, kernel=Kernel(without(program, index)))
            outcome = _noticed(faulty, before, after)
        found[f"{index} {instruction.line}"] = outcome
    return found


def without(program: Program, index: int) -> Program:
    """The program without one instruction."""
    instructions = program.instructions[:index] + program.instructions[index + 1 :]
    labels = {label: at - (at > index) for label, at in program.labels.items()}
    return dataclasses.replace(program, instructions=instructions, labels=labels)


def _is_fault(instruction: Instruction) -> bool:
    return any(instruction.opcode[: len(fault)] == fault for fault in _FAULTS)


def _recorded(name: str) -> tuple[Launch, list[Tensor], list[Tensor], dict[int, bool]]:
    """The first launch of a kernel, its tensors before and after, and {index of a wait: whether it
    ever found something in flight}."""
    found: list[Any] = []

    def run(launch: Launch) -> None:
        if launch.kernel.program.name != name or found:
            return launch.run()
        before = [x.clone() for x in launch.tensors]
        waited = _watch_waits(launch.kernel)
        launch.run()
        found.extend((launch, before, [x.clone() for x in launch.tensors], waited))

    driver.active().run = run
    x: dict[str, Any]
    x, options = make_inputs("faults", _CASE)
    names = ("q", "k", "v", "key_types", "type_bias", "type_scale")
    inputs = AttnInputs(*(x[key] for key in names))
    params = AttnParams(
        options["num_types"], options["softmax_scale"], options["causal"], options["window"]
    )
    outputs = triton_backend.forward(inputs, params)
    if not found:
        grads = AttnOutput(*(x[key] for key in ("dout", "dmass", "dlse")))
        triton_backend.backward(grads, inputs, outputs, params)
    launch, before, after, waited = found
    return launch, before, after, waited


def _watch_waits(kernel: Kernel) -> dict[int, bool]:
    """Puts a look at what is in flight before every wait; the dictionary fills while it runs."""
    index_of = {id(x): index for index, x in enumerate(kernel.program.instructions)}
    waited: dict[int, bool] = {}
    for piece in kernel.pieces:
        for place, instruction in enumerate(piece.instructions):
            if _is_fault(instruction) and "wait_group" in instruction.opcode:
                index = index_of[id(instruction)]
                waited[index] = False
                watched = _watching(piece.operations[place], instruction, index, waited)
                piece.operations[place] = watched
    return waited


def _watching(
    operation: Operation, instruction: Instruction, index: int, waited: dict[int, bool]
) -> Callable[[BlockGroup], None]:
    allowed = constant(instruction.operands[0])

    def run(group: BlockGroup) -> None:
        pending = group.copies if instruction.opcode[0] == "cp" else group.products
        waited[index] |= any(pending.groups[: len(pending.groups) - allowed])
        operation(group)

    return run


def _noticed(launch: Launch, before: list[Tensor], after: list[Tensor]) -> str:
    for tensor, value in zip(launch.tensors, before, strict=True):
        tensor.copy_(value)
    try:
        launch.run()
    except KernelFaultError as error:
        return str(error)
    same = all(_bits_equal(a, b) for a, b in zip(launch.tensors, after, strict=True))
    return REDUNDANT if same else "other results"


def _bits_equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
