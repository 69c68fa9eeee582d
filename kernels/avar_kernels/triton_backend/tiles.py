"""Tile sizes: a static table and a pure function, no run-time autotuning.

An entry is the tile of the lowest modeled cost (``bench/bounds.py``) among those tried for which
the variants that the tests compile spill no registers on Triton 3.6 and 3.7, fit the chip's memory,
and keep loads in flight. Two exceptions on sm80: dq in float32 with all inputs spills 8 bytes with
every tile tried, and dk/dv of shares in half precision with all inputs 272.

The entries of sm90 for 2-byte inputs were timed on an H100 instead, at 8192 tokens, causal, with
Triton 3.6 (docs/LOG.md): some of the fastest spill. Not timed there: float32, "bare" of dq and dkdv
and "rich" for widths 64 and 256, prefixes. On other chips nothing was timed:
``python -m bench.first_hour`` times tiles.
"""

from dataclasses import dataclass

KINDS = ("forward", "dq", "dkdv", "stats", "decode", "received")
ARCHS = ("sm80", "sm89", "sm90", "sm100", "gfx942", "interpreter")
# Optional inputs cost registers: none of them; up to four types; anything more.
LEVELS = ("bare", "typed", "rich")
FEW_TYPES = 4
SORT_CHUNK_KEYS = 4096  # keys that one step of the sorting kernel reads
LIST_BLOCK_SIZES = (16, 32, 64, 128)  # doubles; every block_n of a forward or dq tile below


@dataclass(frozen=True)
class Tile:
    """Rows and keys per block, warps per program, stages of the load pipeline."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


# {(kind, arch): {padded head dimension: tile, or one per level}} for 2-byte inputs. "sm89" stands
# for all chips with 99 KB of shared memory.
_HALF: dict[tuple[str, str], dict[int, tuple[Tile, Tile, Tile] | Tile]] = {
    ("forward", "sm80"): {
        64: (Tile(128, 128, 8, 3), Tile(128, 64, 8, 3), Tile(128, 64, 8, 3)),
        128: Tile(128, 32, 8, 3),
        256: (Tile(64, 64, 8, 2), Tile(64, 16, 8, 2), Tile(64, 16, 4, 2)),
    },
    ("forward", "sm89"): {
        64: (Tile(128, 128, 8, 3), Tile(128, 32, 8, 3), Tile(128, 64, 8, 3)),
        128: (Tile(128, 32, 8, 3), Tile(128, 32, 8, 3), Tile(128, 16, 8, 3)),
        256: Tile(64, 16, 8, 2),
    },
    ("forward", "sm90"): {
        64: (Tile(64, 128, 4, 3), Tile(64, 128, 4, 3), Tile(128, 64, 8, 3)),
        128: (Tile(128, 128, 8, 3), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3)),
        256: (Tile(128, 32, 8, 2), Tile(128, 64, 8, 2), Tile(128, 32, 8, 2)),
    },
    ("forward", "sm100"): {
        64: (Tile(128, 64, 8, 3), Tile(128, 64, 8, 3), Tile(128, 32, 8, 3)),
        128: (Tile(128, 64, 8, 3), Tile(128, 32, 8, 3), Tile(128, 32, 8, 3)),
        256: (Tile(128, 32, 8, 2), Tile(128, 32, 8, 1), Tile(128, 32, 8, 1)),
    },
    ("forward", "gfx942"): {
        64: (Tile(128, 64, 8, 2), Tile(128, 64, 4, 2), Tile(128, 64, 4, 2)),
        128: (Tile(128, 64, 8, 1), Tile(128, 64, 4, 1), Tile(128, 64, 4, 1)),
        256: (Tile(128, 32, 8, 1), Tile(64, 32, 4, 1), Tile(64, 32, 4, 1)),
    },
    ("dq", "sm80"): {
        64: (Tile(128, 64, 8, 3), Tile(64, 16, 4, 3), Tile(128, 16, 8, 3)),
        128: Tile(64, 64, 8, 3),
        256: (Tile(64, 32, 8, 2), Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)),
    },
    ("dq", "sm89"): {
        64: (Tile(128, 64, 8, 3), Tile(128, 16, 8, 3), Tile(128, 16, 8, 3)),
        128: (Tile(128, 32, 8, 3), Tile(32, 64, 4, 3), Tile(32, 64, 4, 3)),
        256: (Tile(64, 16, 8, 1), Tile(32, 32, 8, 1), Tile(64, 16, 8, 2)),
    },
    ("dq", "sm90"): {
        64: (Tile(128, 64, 8, 3), Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
        128: Tile(128, 64, 8, 3),
        256: (Tile(64, 32, 8, 2), Tile(128, 32, 8, 2), Tile(32, 32, 8, 1)),
    },
    ("dq", "sm100"): {
        64: Tile(128, 64, 8, 3),
        128: (Tile(128, 64, 8, 3), Tile(128, 64, 8, 4), Tile(128, 32, 8, 3)),
        256: (Tile(64, 32, 8, 2), Tile(32, 32, 8, 2), Tile(32, 32, 8, 2)),
    },
    ("dq", "gfx942"): {
        64: (Tile(128, 64, 8, 1), Tile(64, 64, 4, 1), Tile(64, 64, 4, 1)),
        128: Tile(128, 32, 8, 1),
        256: (Tile(64, 32, 4, 1), Tile(64, 16, 4, 2), Tile(64, 16, 4, 2)),
    },
    ("dkdv", "sm80"): {
        64: (Tile(32, 128, 8, 3), Tile(32, 128, 8, 3), Tile(16, 128, 8, 3)),
        128: (Tile(16, 128, 8, 3), Tile(16, 128, 8, 3), Tile(16, 128, 8, 2)),
        256: (Tile(32, 32, 8, 2), Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)),
    },
    ("dkdv", "sm89"): {
        64: (Tile(32, 128, 8, 3), Tile(32, 128, 8, 3), Tile(16, 128, 8, 4)),
        128: Tile(16, 128, 8, 3),
        256: Tile(32, 32, 8, 1),
    },
    ("dkdv", "sm90"): {
        64: (Tile(64, 128, 8, 3), Tile(64, 64, 4, 3), Tile(32, 128, 8, 3)),
        128: (Tile(32, 128, 8, 3), Tile(64, 128, 8, 3), Tile(64, 128, 8, 3)),
        256: (Tile(32, 32, 8, 2), Tile(64, 64, 8, 2), Tile(32, 32, 8, 1)),
    },
    ("dkdv", "sm100"): {
        64: (Tile(64, 128, 8, 2), Tile(32, 128, 8, 3), Tile(32, 128, 8, 3)),
        128: Tile(64, 64, 8, 3),
        256: (Tile(32, 64, 8, 2), Tile(32, 64, 8, 2), Tile(16, 64, 8, 2)),
    },
    ("dkdv", "gfx942"): {
        64: Tile(32, 128, 8, 1),
        128: (Tile(32, 64, 8, 1), Tile(16, 64, 8, 2), Tile(32, 64, 4, 1)),
        256: (Tile(16, 64, 8, 1), Tile(16, 64, 8, 1), Tile(16, 32, 4, 1)),
    },
}
# For float32, whose exact products run on ordinary arithmetic units and hold their operands in
# registers.
_SINGLE: dict[str, dict[int, tuple[Tile, Tile, Tile] | Tile]] = {
    "forward": {64: Tile(32, 32, 8, 1), 128: Tile(16, 16, 4, 1), 256: Tile(16, 16, 8, 2)},
    "dq": {64: Tile(32, 32, 8, 1), 128: Tile(16, 16, 8, 1), 256: Tile(16, 16, 8, 2)},
    "dkdv": {
        64: (Tile(32, 32, 8, 1), Tile(32, 16, 8, 1), Tile(32, 16, 8, 2)),
        128: (Tile(32, 32, 8, 1), Tile(16, 16, 8, 1), Tile(16, 16, 8, 1)),
        256: Tile(16, 16, 8, 2),
    },
}
_SINGLE_EXCEPTIONS: dict[tuple[str, str, int], tuple[Tile, Tile, Tile] | Tile] = {
    ("forward", "sm80", 64): (Tile(32, 32, 4, 1), Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)),
    ("forward", "sm90", 256): (Tile(16, 16, 8, 2), Tile(16, 16, 8, 2), Tile(16, 16, 8, 1)),
    ("dq", "sm89", 256): (Tile(16, 16, 8, 2), Tile(16, 16, 8, 2), Tile(16, 16, 4, 2)),
    ("dq", "sm90", 256): (Tile(16, 16, 8, 2), Tile(16, 16, 4, 2), Tile(16, 16, 8, 2)),
    ("dq", "sm100", 256): (Tile(16, 16, 8, 2), Tile(16, 16, 4, 2), Tile(16, 16, 8, 2)),
    ("dq", "gfx942", 256): Tile(16, 16, 4, 1),
    ("dkdv", "sm80", 256): (Tile(16, 16, 8, 2), Tile(16, 16, 16, 2), Tile(16, 16, 8, 2)),
    ("dkdv", "sm89", 64): (Tile(32, 32, 8, 1), Tile(32, 16, 8, 1), Tile(32, 16, 8, 1)),
    ("dkdv", "sm90", 256): (Tile(16, 16, 4, 1), Tile(16, 16, 8, 2), Tile(16, 16, 8, 2)),
    ("dkdv", "sm100", 64): (Tile(32, 32, 8, 1), Tile(32, 16, 8, 1), Tile(16, 32, 8, 1)),
    ("dkdv", "sm100", 128): (Tile(16, 32, 8, 1), Tile(16, 16, 8, 1), Tile(16, 16, 8, 1)),
    ("dkdv", "sm100", 256): (Tile(16, 16, 8, 2), Tile(16, 16, 8, 2), Tile(16, 16, 8, 3)),
    ("dkdv", "gfx942", 64): (Tile(32, 32, 8, 1), Tile(32, 32, 8, 1), Tile(32, 16, 8, 1)),
    ("dkdv", "gfx942", 128): Tile(16, 32, 8, 1),
    ("dkdv", "gfx942", 256): Tile(16, 16, 4, 1),
}
# What a call with shared prefixes needs where the tiles above spill much. Elsewhere it has the same
# tiles, and with bias and scale, or in float32, some of them spill up to 68 bytes.
# {(kind, arch, bytes per element, padded head dimension): tile, or one per level}
_WITH_PREFIX: dict[tuple[str, str, int, int], tuple[Tile, Tile, Tile] | Tile] = {
    ("dkdv", "sm90", 2, 128): (Tile(32, 128, 8, 3), Tile(64, 128, 8, 3), Tile(16, 128, 8, 3)),
    ("dq", "sm100", 2, 128): (Tile(128, 64, 8, 3), Tile(128, 32, 8, 4), Tile(128, 32, 8, 3)),
    ("dkdv", "sm100", 2, 128): (Tile(64, 64, 8, 3), Tile(64, 64, 8, 3), Tile(32, 32, 8, 3)),
}
_STATS = Tile(64, 16, 4, 1)
# Reading K and V is the bound: short tiles, many in flight. block_m is the most (query, head of the
# group) pairs that a tile holds; fewer pairs take the next power of two. It stays below the 64 rows
# of wgmma, which must not read unaligned rows (``launch_inputs.aligned``).
_DECODE = {
    2: {64: Tile(32, 64, 4, 3), 128: Tile(32, 64, 4, 3), 256: Tile(32, 32, 8, 3)},
    4: {64: Tile(16, 16, 4, 2), 128: Tile(16, 16, 8, 2), 256: Tile(16, 16, 8, 2)},
}
_DECODE_EXCEPTIONS = {("sm90", 2, 128): Tile(32, 128, 4, 2)}  # timed: 1.08 times as fast
_DECODE_GFX942 = {
    2: {64: Tile(16, 64, 4, 1), 128: Tile(16, 64, 8, 1), 256: Tile(16, 32, 8, 1)},
    4: {64: Tile(16, 32, 4, 1), 128: Tile(16, 16, 4, 1), 256: Tile(16, 16, 4, 1)},
}
_RECEIVED = {
    2: {64: Tile(64, 128, 8, 3), 128: Tile(64, 128, 8, 2), 256: Tile(32, 64, 8, 2)},
    4: {64: Tile(32, 32, 8, 1), 128: Tile(32, 32, 8, 1), 256: Tile(16, 16, 8, 1)},
}
# Small enough that the tests' short sequences have plain, general and ragged blocks.
_INTERPRETER = Tile(32, 32, 4, 1)


def padded_dim(dim: int) -> int:
    """Width of the tile that holds a head dimension: the next power of two, 16 at least."""
    return max(16, 1 << (dim - 1).bit_length())


def tile_for(
    kind: str,
    arch: str,
    element_bytes: int,
    head_dim: int,
    value_dim: int,
    level: str,
    has_prefix: bool = False,
) -> Tile:
    """The tile of a kernel kind on an architecture; a pure function of its arguments.

    Raises:
        NotImplementedError: a head dimension above 256.
    """
    assert kind in KINDS, kind
    assert arch in ARCHS, arch
    width = max(64, padded_dim(max(head_dim, value_dim)))
    if width > 256:
        raise NotImplementedError(
            f"head dimensions go up to 256 in the triton backend; got {head_dim} and {value_dim}. "
            "Use backend='eager'."
        )
    if kind == "stats":
        return _STATS
    if arch == "interpreter":
        return _INTERPRETER
    if kind == "decode":
        table = _DECODE_GFX942 if arch == "gfx942" else _DECODE
        return _DECODE_EXCEPTIONS.get((arch, element_bytes, width), table[element_bytes][width])
    if kind == "received":
        return _RECEIVED[element_bytes][width]
    if element_bytes == 4:
        tile = _SINGLE_EXCEPTIONS.get((kind, arch, width), _SINGLE[kind][width])
    else:
        tile = _HALF[kind, arch][width]
    if has_prefix:
        tile = _WITH_PREFIX.get((kind, arch, element_bytes, width), tile)
    return tile if isinstance(tile, Tile) else tile[LEVELS.index(level)]


def arch_of_capability(major: int, minor: int) -> str:
    """The table row of an NVIDIA compute capability; chips with 100 KB of shared memory share
    one."""
    if major == 8:
        return "sm80" if minor == 0 else "sm89"
    if major == 9:
        return "sm90"
    return "sm100" if major in (10, 11) else "sm89"
