"""The tensors of a launch, addressed by the numbers that the kernel computes."""

import ctypes
from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import KernelFaultError


class _Buffer:
    """The storage of one tensor."""

    def __init__(self, start: int, num_bytes: int) -> None:
        assert start % 16 == 0, "units of 16 bytes are counted from the start of a storage"
        self.start, self.end = start, start + num_bytes
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(start))
        self.writers: NDArray | None = None
        """For each byte 1 + the block that wrote it, 0 for none; made at the first write."""

    def units(self, element_bytes: int, count: int) -> NDArray:
        """The buffer as rows of ``count`` unsigned integers."""
        row = element_bytes * count
        whole = self.bytes[: len(self.bytes) // row * row]
        return whole.view(f"u{element_bytes}").reshape(-1, count)


class GlobalMemory:
    """All memory that a launch may touch."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        self._buffers = [_Buffer(start, n) for start, n in sorted(storages.items()) if n]
        self._starts = [buffer.start for buffer in self._buffers]

    def load(
        self, addresses: NDArray, element_bytes: int, count: int, blocks: NDArray, line: str
    ) -> NDArray:
        """(lanes, count) unsigned integers; ``blocks`` is the block of each lane."""
        result = np.empty((len(addresses), count), f"u{element_bytes}")
        for buffer, lanes, rows in self._located(addresses, element_bytes * count, line):
            result[lanes] = buffer.units(element_bytes, count)[rows]
            if buffer.writers is not None:
                writers = buffer.writers.reshape(-1, element_bytes * count)[rows]
                if ((writers != 0) & (writers != blocks[lanes, None] + 1)).any():
                    raise KernelFaultError(f"read of what another block writes: {line}")
        return result

    def store(self, addresses: NDArray, values: NDArray, blocks: NDArray, line: str) -> None:
        """Writes (lanes, count) unsigned integers."""
        element_bytes, count = values.itemsize, values.shape[1]
        row_bytes = element_bytes * count
        for buffer, lanes, rows in self._located(addresses, row_bytes, line):
            if buffer.writers is None:
                padded = -(-(buffer.end - buffer.start) // 16) * 16
                buffer.writers = np.zeros(padded, np.int32)
            writers = buffer.writers.reshape(-1, row_bytes)
            own = blocks[lanes, None] + 1
            before = writers[rows]
            writers[rows] = own
            if (((before != 0) & (before != own)) | (writers[rows] != own)).any():
                raise KernelFaultError(f"two blocks write one global address: {line}")
            buffer.units(element_bytes, count)[rows] = values[lanes]

    def _located(self, addresses: NDArray, num_bytes: int, line: str):
        """(buffer, lanes, rows of the buffer in units of ``num_bytes``) for each buffer met."""
        if not len(addresses):
            return
        if (addresses & np.uint64(num_bytes - 1)).any():
            raise KernelFaultError(f"misaligned global access of {num_bytes} bytes: {line}")
        first = self._buffer_of(int(addresses.min()), num_bytes, line)
        if int(addresses.max()) + num_bytes <= first.end:
            offsets = (addresses - np.uint64(first.start)).astype(np.int64)
            yield first, slice(None), offsets // num_bytes
            return
        rest = np.arange(len(addresses))
        while len(rest):
            buffer = self._buffer_of(int(addresses[rest].min()), num_bytes, line)
            inside = addresses[rest] < np.uint64(buffer.end)
            lanes, rest = rest[inside], rest[~inside]
            self._buffer_of(int(addresses[lanes].max()), num_bytes, line)
            offsets = (addresses[lanes] - np.uint64(buffer.start)).astype(np.int64)
            yield buffer, lanes, offsets // num_bytes

    def _buffer_of(self, address: int, num_bytes: int, line: str) -> _Buffer:
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address + num_bytes > self._buffers[index].end:
            raise KernelFaultError(f"global access outside all tensors at {address:#x}: {line}")
        return self._buffers[index]
