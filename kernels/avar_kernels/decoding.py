"""Which dense calls count as decoding, as in generation with a cache: the Triton backend then
splits the keys among programs, and reads no sorted key blocks."""

MAX_DECODING_ROWS = 32  # queries times query heads per key head
MIN_KEYS_PER_SPLIT = 128
MIN_DECODING_KEYS = 1024


def is_decoding(num_queries: int, num_keys: int, group: int) -> bool:
    """Whether splitting the keys of a dense call pays: it has few queries and many keys.

    Args:
        num_queries, num_keys: Lq and Lk.
        group: query heads per key head, H / Hkv.
    """
    return num_queries * group <= MAX_DECODING_ROWS and num_keys >= MIN_DECODING_KEYS
