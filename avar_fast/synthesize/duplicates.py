"""Near-duplicates among texts, by MinHash (Broder 1997) with bands, then exact similarity."""

import re
from collections import defaultdict
from zlib import crc32

import numpy as np

SHINGLE_WORDS = 5
NUM_HASHES = 128
# 32 bands of 4: two texts of similarity 0.8 share a band with probability 1 - (1 - 0.8^4)^32 =
# 0.9999999, two of 0.5 with 0.87; what shares one is compared exactly.
BAND = 4
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
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    sets: list[frozenset[int]] = []
    found: dict[int, int] = {}
    for position, text in enumerate(texts):
        shingles = _shingles(text)
        sets.append(shingles)
        hashes = np.fromiter(shingles, dtype=np.uint64, count=len(shingles)) % _PRIME
        signature = ((hashes[:, None] * factor + shift) % _PRIME).min(axis=0)
        bands = [(at, signature[at : at + BAND].tobytes()) for at in range(0, NUM_HASHES, BAND)]
        for other in sorted({other for band in bands for other in buckets[band]}):
            if _jaccard(shingles, sets[other]) > max_similarity:
                found[position] = other
                break
        else:
            for band in bands:
                buckets[band].append(position)
    return found


def _shingles(text: str) -> frozenset[int]:
    words = re.findall(r"\w+", text.casefold())
    last = max(len(words) - SHINGLE_WORDS, 0)
    return frozenset(
        crc32(" ".join(words[at : at + SHINGLE_WORDS]).encode()) for at in range(last + 1)
    )


def _jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    return len(first & second) / len(first | second)
