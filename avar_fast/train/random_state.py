"""Random state of a process: seed it, get it, set it, and read it from a checkpoint."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def seed_ranks(seed: int, rank: int, step: int) -> None:
    """Seeds torch, numpy and Python for a rank that starts at ``step`` without a saved state."""
    mixed = seed + rank + 1_000_003 * step
    torch.manual_seed(mixed)
    np.random.seed(mixed % 2**32)
    random.seed(mixed)


def get_random_state() -> dict[str, Any]:
    """The states of torch, numpy and Python, and of this process's GPU if there is one."""
    state = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restores a state from ``get_random_state``."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def read_random_state(file: Path) -> dict[str, Any]:
    """Reads a file that holds a state from ``get_random_state``.

    Only tensors, plain values and numpy arrays are unpickled, so a file cannot run code.

    Raises:
        ValueError: the file holds other objects.
    """
    array = np.zeros(1, np.uint32)
    plain = [np.ndarray, np.dtype, type(array.dtype), array.__reduce__()[0]]
    try:
        with torch.serialization.safe_globals(plain):  # pyright: ignore[reportArgumentType]
            return torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{file} must hold random states and nothing else; it holds objects of other kinds,"
            " which are not loaded. Resume from a checkpoint that this trainer wrote."
        ) from None
