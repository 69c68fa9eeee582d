"""Near-duplicates among texts, by MinHash (Broder 1997) in bands, then exact similarity."""

import re
from collections import defaultdict
from zlib import crc32

import numpy as np

SHINGLE_WORDS = 5
NUM_HASHES = 128
# Of pairs right at the threshold; those above it are missed still less often.
MOST_MISSED = 1e-4
_PRIME = np.uint64((1 << 31) - 1)


def near_duplicates(texts: list[str], max_similarity: float) -> dict[int, int]:
    """Texts whose Jaccard similarity with an earlier kept one is above `max_similarity`.

    Similarity is that of the sets of five-word shingles.

    Returns:
        {position of the later text: position of the earlier one}.
    """
    rng = np.random.default_rng(0)
    factor = rng.integers(1, int(_PRIME), NUM_HASHES, dtype=np.uint64)
    shift = rng.integers(0, int(_PRIME), NUM_HASHES, dtype=np.uint64)
    width = band_width(max_similarity)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept: dict[int, np.ndarray] = {}
    found: dict[int, int] = {}
    for position, text in enumerate(texts):
        shingles = _shingles(text)
        hashes = shingles.astype(np.uint64) % _PRIME
        signature = ((hashes[:, None] * factor + shift) % _PRIME).min(axis=0)
        bands = [(at, signature[at : at + width].tobytes()) for at in range(0, NUM_HASHES, width)]
        for other in sorted({other for band in bands for other in buckets.get(band, ())}):
            if _jaccard(shingles, kept[other]) > max_similarity:
                found[position] = other
                break
        else:
            kept[position] = shingles
            for band in bands:
                buckets[band].append(position)
    return found


def band_width(similarity: float) -> int:
    """The widest bands of hashes, one of which two texts of a similarity still share all but
    surely: the wider, the fewer pairs that are less alike are compared."""
    for width in (32, 16, 8, 4, 2):
        if (1 - similarity**width) ** (NUM_HASHES // width) <= MOST_MISSED:
            return width
    return 1


def _shingles(text: str) -> np.ndarray:
    """(n,) uint32, sorted and distinct, one at least."""
    words = re.findall(r"\w+", text.casefold())
    last = max(len(words) - SHINGLE_WORDS, 0)
    hashes = [crc32(" ".join(words[at : at + SHINGLE_WORDS]).encode()) for at in range(last + 1)]
    return np.unique(np.array(hashes, dtype=np.uint32))


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both)
