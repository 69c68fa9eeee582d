"""Compiles a kernel variant for a chip without having one, and reads back what it uses.

    python -m avar_kernels.triton_backend.aot sm90 bfloat16 128 128 [--untyped] [--causal]

prints registers, spilled bytes, shared memory and the length of the main loop of every kernel.
Needs ``TRITON_INTERPRET`` unset.
"""

import argparse
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from . import descriptors, main_loop
from .block_lists import sort_constexprs
from .blocks import sort_blocks_kernel
from .kernel_decode import visual_attn_decode_kernel
from .kernel_dkdv import visual_attn_bwd_dkdv_kernel
from .kernel_dq import visual_attn_bwd_dq_kernel, visual_attn_bwd_stats_kernel
from .kernel_forward import visual_attn_fwd_kernel
from .kernel_received import attn_received_kernel
from .main_loop import MainLoop
from .tiles import KINDS, LIST_BLOCK_SIZES
from .variants import Variant

KERNELS = {
    "forward": visual_attn_fwd_kernel,
    "dq": visual_attn_bwd_dq_kernel,
    "dkdv": visual_attn_bwd_dkdv_kernel,
    "stats": visual_attn_bwd_stats_kernel,
    "decode": visual_attn_decode_kernel,
    "received": attn_received_kernel,
}
TARGETS = {
    "sm80": GPUTarget("cuda", 80, 32),
    "sm89": GPUTarget("cuda", 89, 32),
    "sm90": GPUTarget("cuda", 90, 32),
    "sm100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# What one program may use, in bytes.
SHARED_LIMIT_BYTES = {
    "sm80": 163 * 1024,
    "sm89": 99 * 1024,
    "sm90": 227 * 1024,
    "sm100": 227 * 1024,
    "gfx942": 64 * 1024,
}
ELEMENT = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
FLOAT32_POINTERS = (
    "mass_ptr", "lse_ptr", "dmass_ptr", "dlse_ptr", "stats_ptr", "bias_ptr", "scale_ptr",
    "dbias_ptr", "dscale_ptr", "part_out_ptr", "part_mass_ptr", "part_lse_ptr", "weight_ptr",
    "received_ptr",
)  # fmt: skip
INT32_POINTERS = (
    "types_ptr", "lists_ptr", "cu_seqlens_q_ptr", "cu_seqlens_k_ptr", "prefix_index_ptr",
    "order_ptr", "offsets_ptr", "reader_starts_ptr", "readers_ptr", "lengths_ptr", "table_ptr",
)  # fmt: skip
# Triton compiles a kernel that needs more to a trap, and refuses to launch it.
TENSOR_MEMORY_LIMIT_COLUMNS = 512
DECODE_PAGE_SIZE = 256  # of the decode kernel that is compiled with pages


@dataclass(frozen=True)
class Resources:
    """What one kernel uses; registers are per thread (VGPRs on AMD)."""

    registers: int
    spill_bytes: int
    shared_bytes: int
    tensor_memory_columns: int
    """Of the tensor memory of sm_100; 0 on other chips."""
    main_loop: MainLoop | None
    """None if no loop has a matrix product."""
    wrong_products: int = 0
    """Matrix instructions of sm_90 that the assembler gave a wrong address; see ``descriptors``."""


def compile_kernel(kind: str, variant: Variant, dtype: str, shares: bool = False) -> Resources:
    """Compiles kernel ``kind`` ("sort" too) for ``variant.arch``; arguments are aligned.

    With ``shares``, dk and dv are float32, as where heads of a group are shared out. Else there is
    one share, which launches compile as a constant."""
    kernel = sort_blocks_kernel if kind == "sort" else KERNELS[kind]
    if kind == "sort":
        sizes = LIST_BLOCK_SIZES
        constexprs = sort_constexprs(variant.num_types, variant.packed, sizes[0], len(sizes))
        options = {"num_warps": 4}
    else:
        constexprs = variant.constexprs(kind)
        tile = variant.tile(kind)
        if kind == "decode":
            page_size = DECODE_PAGE_SIZE if variant.packed else 0
            if variant.has_prefix:
                constexprs = variant.decode_constexprs(False, 0, tile.block_m, True)
            else:
                constexprs = variant.decode_constexprs(True, page_size, tile.block_m, False)
        options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    types = {name: _type_of(name, dtype) for name in kernel.arg_names}
    if shares:
        types |= {"dk_ptr": "*fp32", "dv_ptr": "*fp32"}
    elif kind == "dkdv":
        constexprs = constexprs | {"num_shares": 1}
    aligned = {
        (parameter.num,): [["tt.divisibility", 16]]
        for parameter in kernel.params
        if parameter.name.endswith("_ptr")
        or (
            parameter.name.startswith("stride_")
            and variant.head_dim % 16 == 0
            and not parameter.do_not_specialize
        )
    }
    signature = {
        name: "constexpr" if name in constexprs else types[name] for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs, aligned)
    options["enable_fp_fusion"] = True  # as in launches
    compiled = triton.compile(source, target=TARGETS[variant.arch], options=options)
    shared = compiled.metadata.shared
    if variant.arch.startswith("gfx"):
        assembly = compiled.asm["amdgcn"]
        return Resources(*_read_amdgcn(assembly), shared, 0, main_loop.of_amd(assembly))
    ptx = compiled.asm["ptx"]
    loop = main_loop.of_nvidia(compiled.asm["cubin"], ptx)
    tensor_memory = getattr(compiled.metadata, "tmem_size", 0) or 0
    wrong = descriptors.wrong_products(compiled.asm["cubin"]) if variant.arch == "sm90" else []
    used = (*_read_ptxas(ptx, variant.arch), shared, tensor_memory, loop)
    return Resources(*used, wrong_products=len(wrong))


def _type_of(name: str, dtype: str) -> str:
    if name.endswith("_ptr"):
        if name in INT32_POINTERS:
            return "*i32"
        return "*fp32" if name in FLOAT32_POINTERS else f"*{ELEMENT[dtype]}"
    return "fp32" if name == "softmax_scale" else "i32"


def _read_ptxas(ptx: str, arch: str) -> tuple[int, int]:
    """(registers, spilled bytes) as triton's own assembler reports them."""
    ptxas = get_ptxas(TARGETS[arch].arch).path  # not every one of them knows Triton's PTX
    gpu = {"sm90": "sm_90a", "sm100": "sm_100a"}.get(arch, arch.replace("sm", "sm_"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        done = subprocess.run(
            [ptxas, "-v", f"--gpu-name={gpu}", file, "-o", Path(folder) / "kernel.cubin"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", done.stderr))
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr))
    return registers, spills


def _read_amdgcn(assembly: str) -> tuple[int, int]:
    registers = int(re.search(r"\.vgpr_count:\s*(\d+)", assembly)[1])
    spilled = int(re.search(r"\.vgpr_spill_count:\s*(\d+)", assembly)[1])
    return registers, 4 * spilled


def make_variant(
    arch: str,
    dtype: str,
    head_dim: int,
    value_dim: int,
    *,
    types: bool = True,
    bias: bool = True,
    scale: bool = True,
    causal: bool = False,
    packed: bool = False,
    prefix: bool = False,
    window: bool = False,
    precision: str = "ieee",
    num_types: int = 3,
) -> Variant:
    """A variant; the switches are the optional inputs it has."""
    return Variant(
        arch=arch,
        element_bytes=4 if dtype == "float32" else 2,
        head_dim=head_dim,
        value_dim=value_dim,
        num_types=num_types,
        has_types=types,
        has_bias=bias,
        has_scale=scale,
        has_left=window,
        has_right=causal or window,
        packed=packed,
        has_prefix=prefix,
        precision=precision,
    )


def main() -> None:
    """Prints a table for one variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arch", choices=TARGETS)
    parser.add_argument("dtype", choices=ELEMENT)
    parser.add_argument("head_dim", type=int)
    parser.add_argument("value_dim", type=int)
    parser.add_argument("--untyped", action="store_true")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--precision", default="ieee", choices=("ieee", "tf32"))
    args = parser.parse_args()
    variant = make_variant(
        args.arch, args.dtype, args.head_dim, args.value_dim,
        types=not args.untyped, bias=not args.untyped, scale=not args.untyped,
        causal=args.causal, packed=args.packed, precision=args.precision,
    )  # fmt: skip
    for kind in KINDS:
        used = compile_kernel(kind, variant, args.dtype)
        tile = variant.tile(kind)
        print(
            f"{kind:8} {tile}: {used.registers} registers, "
            f"{used.spill_bytes} B spilled, {used.shared_bytes} B shared, "
            f"main loop {used.main_loop and used.main_loop.instructions}"
        )


if __name__ == "__main__":
    main()
