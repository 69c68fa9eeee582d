"""Finds near-duplicates among texts: MinHash (Broder 1997) in bands finds candidates, and the exact
similarity decides."""

import re
from collections import defaultdict
from zlib import crc32

import numpy as np

SHINGLE_WORDS = 5
NUM_HASHES = 128
# Largest share of pairs at the threshold that may be missed. Pairs above it are missed less often.
MOST_MISSED = 1e-4
_PRIME = np.uint64((1 << 31) - 1)


def near_duplicates(texts: list[str], max_similarity: float) -> dict[int, int]:
    """Finds texts whose similarity to an earlier kept text is above `max_similarity`.

    The similarity is the Jaccard similarity of the sets of five-word shingles.

    Returns:
        {position of the later text: position of the earlier text}.
    """
    rng = np.random.default_rng(0)
    factor = rng.integers(1, int(_PRIME), NUM_HASHES, dtype=np.uint64)
    shift = rng.integers(0, int(_PRIME), NUM_HASHES, dtype=np.uint64)
    width = band_width(max_similarity)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept: dict[int, np.ndarray] = {}
    duplicates: dict[int, int] = {}
    for position, text in enumerate(texts):
        shingles = _shingles(text)
        hashes = shingles.astype(np.uint64) % _PRIME
        signature = ((hashes[:, None] * factor + shift) % _PRIME).min(axis=0)
        bands = [
            (start, signature[start : start + width].tobytes())
            for start in range(0, NUM_HASHES, width)
        ]
        for other in sorted({other for band in bands for other in buckets.get(band, ())}):
            if _jaccard(shingles, kept[other]) > max_similarity:
                duplicates[position] = other
                break
        else:
            kept[position] = shingles
            for band in bands:
                buckets[band].append(position)
    return duplicates


def band_width(similarity: float) -> int:
    """Number of hashes in a band: the largest with which two texts of this similarity still share
    a band almost certainly. Wider bands lead to fewer comparisons of less similar texts."""
    for width in (32, 16, 8, 4, 2):
        if (1 - similarity**width) ** (NUM_HASHES // width) <= MOST_MISSED:
            return width
    return 1


def _shingles(text: str) -> np.ndarray:
    """Hashes of the shingles of a text: (n,) uint32, sorted and distinct, n >= 1."""
    words = re.findall(r"\w+", text.casefold())
    last = max(len(words) - SHINGLE_WORDS, 0)
    shingles = [" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last + 1)]
    hashes = [crc32(shingle.encode()) for shingle in shingles]
    return np.unique(np.array(hashes, dtype=np.uint32))


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)
