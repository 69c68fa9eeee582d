"""Shared memory of a group of blocks, and the order of its accesses.

Between two barriers, an interval, the warps of a block may run in any order. So within an interval
a warp may not touch what another warp writes. Asynchronous accesses, cp.async and wgmma, count from
their issue until they are waited for. For every unit of memory four numbers are kept:
    writer      interval and warp of the last write, or that a copy is under way, or "never"
    reader      interval and warp of the last read, or that several warps read
    products    how many wgmma in flight read it
    unfenced    whether a store wrote it since the last fence.proxy.async: wgmma reads through
                another proxy and may not see what is not fenced. What cp.async brings is left out:
                Triton 3.7 fences it in every round of a loop, Triton 3.6 before the loop only
A unit is the smallest access of the kernel. All addresses are bytes in the block's own memory;
``bases`` are the places of the blocks of the lanes.
"""

import numpy as np
from numpy.typing import NDArray

from .errors import KernelFaultError

ALIGNMENT = 16
_WARPS = 64  # warps that a stamp distinguishes; the last one stands for "several"
_SEVERAL = _WARPS - 1
_NEVER = -1
_UNDER_WAY = 1 << 30
_PATTERN = 0xA5


def _fault(message: str) -> KernelFaultError:
    return KernelFaultError(f"shared memory: {message}")


class SharedMemory:
    """``size`` bytes for each of ``num_blocks`` blocks."""

    def __init__(self, num_blocks: int, size: int, unit: int) -> None:
        self.size, self.unit, self.num_blocks = size, unit, num_blocks
        self.stride = -(-size // ALIGNMENT) * ALIGNMENT
        total = num_blocks * self.stride
        self.bytes = np.full(total, _PATTERN, np.uint8)
        self.writer = np.full(total // unit, _NEVER, np.int32)
        self.reader = np.full(total // unit, _NEVER, np.int32)
        self.products = np.zeros(total // unit, np.int32)
        self.unfenced = np.zeros(total // unit, bool)
        self.interval = 1
        self.num_products = 0

    def take(self, blocks: NDArray) -> "SharedMemory":
        """A copy with a selection of the blocks."""
        part = object.__new__(SharedMemory)
        part.__dict__.update(self.__dict__)
        part.num_blocks = len(blocks)
        for name in ("bytes", "writer", "reader", "products", "unfenced"):
            whole = getattr(self, name).reshape(self.num_blocks, -1)
            setattr(part, name, whole[blocks].reshape(-1))
        return part

    def barrier(self) -> None:
        """All warps of the block meet."""
        self.interval += 1

    def proxy_fence(self) -> None:
        """What has been written is visible to wgmma."""
        self.unfenced[:] = False

    def load(
        self, at: NDArray, element_bytes: int, count: int, bases: NDArray, warps: NDArray, line: str
    ) -> NDArray:
        """(lanes, count) unsigned integers."""
        rows = self._rows(at, bases, element_bytes * count, line)
        units = element_bytes * count // self.unit
        own = self._stamps(warps)
        written = self.writer.reshape(-1, units)[rows]
        foreign = (written >= self._oldest()) & (written != own)
        if foreign.any() or written.min(initial=0) < 0:
            self._raise_for_read(written, line)
        self._note_read(rows, units, own)
        return self._elements(element_bytes, count)[rows]

    def store(
        self, at: NDArray, values: NDArray, bases: NDArray, warps: NDArray, line: str
    ) -> None:
        """Writes (lanes, count) unsigned integers."""
        element_bytes, count = values.itemsize, values.shape[1]
        rows = self._rows(at, bases, element_bytes * count, line)
        units = element_bytes * count // self.unit
        own = self._stamps(warps)
        self._check_write(rows, units, own, line)
        self.writer.reshape(-1, units)[rows] = own
        self.unfenced.reshape(-1, units)[rows] = True
        elements = self._elements(element_bytes, count)
        elements[rows] = values
        if (elements[rows] != values).any():
            raise _fault(f"lanes store different values at one shared address: {line}")

    def begin_copy(
        self, at: NDArray, num_bytes: int, bases: NDArray, warps: NDArray, line: str
    ) -> None:
        """A copy to ``at`` is issued."""
        rows = self._rows(at, bases, num_bytes, line)
        own = self._stamps(warps)
        self._check_write(rows, num_bytes // self.unit, own, line)
        self.writer.reshape(-1, num_bytes // self.unit)[rows] = _UNDER_WAY

    def end_copy(self, at: NDArray, values: NDArray, bases: NDArray, warps: NDArray) -> None:
        """The copy of (lanes, bytes) lands; it counts as a write of the warp that waits."""
        num_bytes = values.shape[1]
        rows = (at + bases) // num_bytes
        self.writer.reshape(-1, num_bytes // self.unit)[rows] = self._stamps(warps)
        self.bytes.reshape(-1, num_bytes)[rows] = values

    def begin_product(self, units: NDArray, line: str) -> None:
        """A wgmma that reads these units, each named once, is issued."""
        written = self.writer[units]
        if written.min() < 0 or written.max() >= self._oldest():
            self._raise_for_read(written, line)
        if self.unfenced[units].any():
            raise _fault(f"written without fence.proxy.async before wgmma reads: {line}")
        self.products[units] += 1
        self.num_products += 1

    def end_product(self, units: NDArray) -> None:
        """The wgmma is complete."""
        self.products[units] -= 1
        self.reader[units] = self._oldest() + _SEVERAL
        self.num_products -= 1

    def chunks(self, rows: NDArray) -> NDArray:
        """The 16-bit elements of 16-byte chunks."""
        return self.bytes.view(np.uint16).reshape(-1, 8)[rows]

    def _elements(self, element_bytes: int, count: int) -> NDArray:
        return self.bytes.view(f"u{element_bytes}").reshape(-1, count)

    def _rows(self, at: NDArray, bases: NDArray, num_bytes: int, line: str) -> NDArray:
        if (at & (num_bytes - 1)).any():
            raise _fault(f"misaligned shared access of {num_bytes} bytes: {line}")
        if at.max(initial=0) > self.size - num_bytes or at.min(initial=0) < 0:
            raise KernelFaultError(f"shared access beyond the {self.size} bytes there are: {line}")
        return (at + bases) // num_bytes

    def _oldest(self) -> int:
        """The smallest stamp of this interval."""
        return self.interval * _WARPS

    def _stamps(self, warps: NDArray) -> NDArray:
        return (warps + self._oldest())[:, None]

    def _note_read(self, rows: NDArray, units: int, own: NDArray) -> None:
        reader = self.reader.reshape(-1, units)
        several = self._oldest() + _SEVERAL
        before = reader[rows]
        if (before == several).all():
            return
        reader[rows] = own
        others = ((before >= self._oldest()) & (before != own)) | (reader[rows] != own)
        if others.any():
            lanes, places = np.nonzero(others)
            reader[rows[lanes], places] = several

    def _check_write(self, rows: NDArray, units: int, own: NDArray, line: str) -> None:
        oldest = self._oldest()
        written = self.writer.reshape(-1, units)[rows]
        if (written >= _UNDER_WAY).any():
            raise KernelFaultError(f"written while a cp.async in flight writes there: {line}")
        if ((written >= oldest) & (written != own)).any():
            raise _fault(f"written by two warps without a barrier: {line}")
        read = self.reader.reshape(-1, units)[rows]
        if ((read >= oldest) & (read != own)).any():
            raise KernelFaultError(f"written and read by two warps without a barrier: {line}")
        if self.num_products and self.products.reshape(-1, units)[rows].any():
            raise KernelFaultError(f"written while a wgmma in flight reads there: {line}")

    def _raise_for_read(self, written: NDArray, line: str) -> None:
        if (written == _NEVER).any():
            raise _fault(f"read before anything is written: {line}")
        if (written >= _UNDER_WAY).any():
            raise KernelFaultError(f"read while a cp.async in flight writes there: {line}")
        raise KernelFaultError(f"read and written by two warps without a barrier: {line}")
