"""Runs flash-attention's own tests on this package's kernels, on a CPU.

    git clone https://github.com/Dao-AILab/flash-attention
    python -m tests.upstream.flash_attn_grid flash-attention --cases 700

Their file tests/test_flash_attn.py is read from the checkout; "cuda" in it becomes "cpu". It
compares output and gradients with a float32 computation, and allows two to three times the error
of plain PyTorch. Cases are drawn from all those that the kernels support: dropout, ALiBi, softcap
and paged caches are not. The package einops is needed.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from avar_kernels import visual_attn_func, visual_attn_varlen_func
from torch import Tensor

TESTS = (
    "test_flash_attn_qkvpacked",
    "test_flash_attn_varlen_qkvpacked",
    "test_flash_attn_output",
    "test_flash_attn_varlen_output",
    "test_flash_attn_causal",
    "test_flash_attn_varlen_causal",
    "test_flash_attn_bwd_overflow",
    "test_flash_attn_bwd_transpose",
    "test_flash_attn_bwd_varlen_overflow",
    "test_flash_attn_deterministic",
    "test_flash_attn_varlen_deterministic",
)
NOT_SUPPORTED = {"dropout_p": 0.0, "alibi": False, "softcap": 0.0, "paged_kv_block_size": None}
"""Parameter of a test -> the only value that the kernels take."""


def attend(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, **options: Any) -> Any:
    return _like_flash_attn(visual_attn_func, (q, k, v), options)


def attend_packed(*arguments: Any, **options: Any) -> Any:
    return _like_flash_attn(visual_attn_varlen_func, arguments[:7], options)


def _like_flash_attn(operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """(out, lse, None) where probabilities are asked for, as flash-attn gives them, else out."""
    given = {"softmax_scale", "causal", "window_size", "deterministic"} & options.keys()
    kept = {name: options[name] for name in given}
    if "window_size" in kept:
        kept["window_size"] = tuple(map(int, kept["window_size"]))
    result = operation(*arguments, num_types=1, **kept)
    return (result.out, result.lse, None) if options.get("return_attn_probs") else result.out


def stand_ins() -> dict[str, ModuleType]:
    """The modules that their tests import."""
    package = ModuleType("flash_attn")
    for name in ("bert_padding", "flash_attn_interface", "layers", "layers.rotary"):
        setattr(package, name.rpartition(".")[2], ModuleType(f"flash_attn.{name}"))
    parts: Any = package
    parts.flash_attn_func = attend
    parts.flash_attn_kvpacked_func = lambda q, kv, *a, **o: attend(q, *kv.unbind(2), *a, **o)
    parts.flash_attn_qkvpacked_func = lambda qkv, *a, **o: attend(*qkv.unbind(2), *a, **o)
    parts.flash_attn_varlen_func = attend_packed
    parts.flash_attn_varlen_kvpacked_func = lambda q, kv, *a, **o: attend_packed(
        q, *kv.unbind(1), *a, **o
    )
    parts.flash_attn_varlen_qkvpacked_func = lambda qkv, starts, longest, *a, **o: attend_packed(
        *qkv.unbind(1), starts, starts, longest, longest, *a, **o
    )
    parts.flash_attn_with_kvcache = None
    parts.bert_padding.unpad_input, parts.bert_padding.pad_input = unpad, pad
    parts.flash_attn_interface._get_block_size_n = None
    parts.flash_attn_interface.USE_TRITON_ROCM = False
    parts.rotary.apply_rotary_emb = None
    modules = {"flash_attn": package, "flash_attn.layers.rotary": parts.rotary}
    return modules | {
        f"flash_attn.{name}": getattr(parts, name)
        for name in ("bert_padding", "flash_attn_interface", "layers")
    }


def unpad(rows: Tensor, mask: Tensor, unused: Tensor | None = None) -> Any:
    """(T, ...) rows of the mask, their places, (B + 1,) starts, the longest, lengths in use."""
    kept = mask if unused is None else mask | unused
    lengths = kept.sum(1, dtype=torch.int32)
    places = kept.flatten().nonzero().flatten()
    starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    used = mask.sum(1, dtype=torch.int32)
    return rows.flatten(0, 1)[places], places, starts, int(lengths.max()), used


def pad(packed: Tensor, places: Tensor, batch: int, length: int) -> Tensor:
    rows = packed.new_zeros(batch * length, *packed.shape[1:])
    return rows.index_put((places,), packed).unflatten(0, (batch, length))


class Sample:
    """A pytest plugin that keeps some of the supported cases."""

    def __init__(self, cases: int, longest: int, seed: int) -> None:
        self.cases, self.longest, self.random = cases, longest, random.Random(seed)
        self.passed, self.failed = 0, []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        supported = [item for item in items if item.originalname in TESTS and self._takes(item)]
        items[:] = self.random.sample(supported, min(self.cases, len(supported)))
        print(f"{len(items)} of {len(supported)} supported cases")

    def _takes(self, item: Any) -> bool:
        given = item.callspec.params
        lengths = [given.get(name, 0) for name in ("seqlen", "seqlen_q", "seqlen_k")]
        supported = all(given.get(name, only) == only for name, only in NOT_SUPPORTED.items())
        return supported and max(lengths) <= self.longest

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed
        if report.failed:
            self.failed.append(report.nodeid)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="of flash-attention")
    parser.add_argument("--cases", type=int, default=700)
    parser.add_argument("--longest", type=int, default=2048, help="longest sequence of a case")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cases")
    options = parser.parse_args()
    source = options.checkout / "tests" / "test_flash_attn.py"
    if not source.is_file():
        parser.error(f"checkout: {source} does not exist. Name a checkout of flash-attention.")
    sys.modules.update(stand_ins())
    cuda: Any = torch.cuda
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.get_device_properties = lambda *_: argparse.Namespace(total_memory=1 << 40)
    sample = Sample(options.cases, options.longest, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test_flash_attn.py"
        file.write_text(source.read_text().replace('"cuda"', '"cpu"'))
        arguments = [
            str(file),
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore",
            f"--rootdir={folder}",
        ]
        status = pytest.main([*arguments, "--tb=line"], plugins=[sample])
    print(f"{sample.passed} passed, {len(sample.failed)} failed", *sample.failed, sep="\n  ")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
