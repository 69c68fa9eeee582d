"""What one step of a compiled kernel's main loop does, read from its assembly text.

The main loop is the shortest one with a matrix product: the loop over blocks that need no mask.
Exact float32 products run on ordinary arithmetic units; such kernels have no main loop here.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton

NVIDIA_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_SASS_PRODUCT = re.compile(r"\b(HGMMA|HMMA|UTCHMMA)\b")
_PTX_PRODUCT = re.compile(r"\b(wgmma\.mma_async|mma\.sync|tcgen05\.mma)\.")


@dataclass(frozen=True)
class Product:
    """Shape of one matrix instruction."""

    rows: int
    columns: int
    depth: int
    left_in_registers: bool = False
    """Whether the left operand comes from registers; else both come from shared memory."""
    warps: int = 1
    """Warps that issue it together."""

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}{'r' * self.left_in_registers}"


@dataclass(frozen=True)
class MainLoop:
    """One step of the loop."""

    instructions: int
    """Instructions of one warp."""
    spilled: int
    """Among them accesses to spilled registers."""
    special: int
    """Among them special functions (exp2, log2, reciprocals)."""
    products: Counter[Product]
    """Matrix instructions of one warp, or of the group of warps that issues them together."""
    loads_in_flight: int
    """Groups of asynchronous copies (of tiles) that are still on their way whenever the loop waits
    for one; other loads are not counted. On AMD, loads that are on their way when a step ends. 0:
    every step waits for its own tiles."""


def of_nvidia(cubin: bytes, ptx: str) -> MainLoop | None:
    """The main loop of a kernel for an NVIDIA chip; None if no loop has a matrix product."""
    instructions = _shortest_loop(sass_lines(cubin), _SASS_PRODUCT)
    # A second reading, because only PTX says how many groups of copies a wait leaves in flight.
    virtual = _shortest_loop(_ptx_lines(ptx), _PTX_PRODUCT)
    if instructions is None or virtual is None:
        return None
    waits = [int(n) for line in virtual for n in re.findall(r"cp\.async\.wait_group\s+(\d+)", line)]
    products = Counter(_product(line) for line in instructions if _SASS_PRODUCT.search(line))
    if any(product is None for product in products):  # sm_100: the shape is in a descriptor
        products = _tcgen05_products(virtual, ptx)
    return MainLoop(
        instructions=len(instructions),
        spilled=sum(bool(re.search(r"\b(STL|LDL)\b", line)) for line in instructions),
        special=sum("MUFU" in line for line in instructions),
        products=products,
        loads_in_flight=min(waits, default=0),
    )


def of_amd(assembly: str) -> MainLoop | None:
    """The main loop of a kernel for an AMD chip; None if no loop has a matrix product."""
    product = re.compile(r"v_mfma_f32_(\d+)x(\d+)x(\d+)")
    lines = [line.partition(";")[0].strip() for line in assembly.splitlines()]
    instructions = _shortest_loop([line for line in lines if line[:1] not in ("", "#")], product)
    if instructions is None:
        return None
    shapes = (product.search(line) for line in instructions)
    return MainLoop(
        instructions=len(instructions),
        spilled=sum(line.startswith("scratch_") for line in instructions),
        special=sum(bool(re.match(r"v_(exp|log|rcp|rsq)_", line)) for line in instructions),
        products=Counter(Product(*map(int, shape.groups())) for shape in shapes if shape),
        loads_in_flight=_loads_past_the_end(instructions),
    )


def _loads_past_the_end(instructions: list[str]) -> int:
    """Loads that no wait of the loop covers before the step ends."""
    pending = 0
    for line in instructions:
        pending += bool(re.match(r"(global|buffer|flat)_load", line))
        if wait := re.search(r"vmcnt\((\d+)\)", line):
            pending = min(pending, int(wait[1]))
    return pending


def _shortest_loop(lines: list[str], product: re.Pattern[str]) -> list[str] | None:
    """The instructions from a label to the last jump back to it, products among them."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    loops: dict[str, list[str]] = {}
    for line in lines:
        if label := re.fullmatch(r"([\w.$]+):.*", line):
            labels[label[1]] = len(instructions)
            continue
        instructions.append(line)
        jump = re.search(r"\b(?:BRA|bra|s_cbranch)\S*\s.*?([.$]?[\w.$]+)\)?\s*;?$", line)
        if jump and jump[1] in labels:
            loops[jump[1]] = instructions[labels[jump[1]] :]
    with_product = [body for body in loops.values() if any(product.search(line) for line in body)]
    return min(with_product, key=len, default=None)


def sass_lines(cubin: bytes) -> list[str]:
    """Labels and instructions."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [NVIDIA_TOOLS / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True
        )
    matches = re.finditer(
        r"^\s*(?:(\.L_x_\d+:)|/\*[0-9a-f]+\*/\s+(.*?);)", done.stdout, re.MULTILINE
    )
    return [match[1] or match[2] for match in matches]


def _ptx_lines(ptx: str) -> list[str]:
    """Labels and instructions. Labels of inline assembly are left out: each is defined many times,
    so that a jump forward to one looks like a jump back to another."""
    lines = (line.partition("//")[0].strip() for line in ptx.splitlines())
    inline = re.compile(r"[A-Za-z_]\w*:")
    return [x for x in lines if x and not x.startswith(".") and not inline.fullmatch(x)]


def _product(line: str) -> Product | None:
    """The shape of a SASS matrix instruction; None for those of sm_100, which do not name it."""
    if group := re.search(r"HGMMA\.(\d+)x(\d+)x(\d+)\S* R\d+, (R\d+)?", line):
        shape = (int(size) for size in group.groups()[:3])
        return Product(*shape, left_in_registers=group[4] is not None, warps=4)
    if warp := re.search(r"HMMA\.(\d\d)(\d)(\d+)\.", line):
        return Product(int(warp[1]), int(warp[2]), int(warp[3]), left_in_registers=True)
    return None


def _tcgen05_products(loop: list[str], ptx: str) -> Counter[Product]:
    """Shapes from the instruction descriptors: N / 8 in bits 17 to 22, M / 16 in bits 24 to 28."""
    found: Counter[Product] = Counter()
    for line in loop:
        call = re.search(r"tcgen05\.mma\S*\s+\[.*?\],\s*(\[.*?\]|%\w+),\s*%\w+,\s*(%\w+),", line)
        if call is None:
            continue
        descriptor = re.search(rf"mov\.b32\s+{call[2]},\s*(\d+);", ptx)
        assert descriptor is not None, line
        bits = int(descriptor[1])
        rows, columns = (bits >> 24 & 31) * 16, (bits >> 17 & 63) * 8
        # The whole block issues it once; in SASS all warps run the code around it.
        found[Product(rows, columns, 16, left_in_registers=call[1].startswith("["), warps=0)] += 1
    return found
