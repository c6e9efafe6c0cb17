"""Memory of one device on one stream, whoever owns it: the same few operations on torch and on PyCUDA.

The persistent chain and the torch-free encoder are written against :class:`DeviceMemory` and know neither of them.  What both
share is here: host arrays go through one block of page-locked memory, so that copies to the device do not wait for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Protocol

import numpy as np

from fusedx.engine.cuda import driver
from fusedx.engine.errors import ConfigError

#: Bytes of page-locked memory; a larger array is copied in pieces.
STAGING = 4 << 20
#: Copies start at multiples of this, so that every numpy dtype is aligned.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Buffer:
    """``nbytes`` of device memory at ``pointer``, which lives as long as ``owner``."""

    pointer: int
    nbytes: int
    owner: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A contiguous array in a buffer, from its first byte."""

    buffer: Buffer
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, for PyCUDA, CuPy, torch and Numba.  No stream: whoever hands the array out has ordered its work."""
        where = (self.buffer.pointer, False)
        return {"version": 3, "shape": self.shape, "typestr": self.dtype.str, "data": where, "strides": None, "stream": None}


class DeviceMemory(Protocol):
    """All work is queued on ``stream``, a CUstream as an integer, in order.  Everything but ``exclusive`` is called inside it."""

    stream: int

    def exclusive(self) -> AbstractContextManager[None]:
        """Inside, the device is current on the calling thread and no other thread uses this object.  May be nested."""

    def empty(self, nbytes: int) -> Buffer:
        """At least one byte.  Raises DeviceError where the memory is full."""

    def upload(self, array: np.ndarray) -> Buffer:
        """A new buffer with the array's bytes, in C order."""

    def write(self, buffer: Buffer, array: np.ndarray, offset: int = 0) -> None:
        """Queue a copy to byte ``offset`` of the buffer; the array may be changed as soon as this returns."""

    def copy(self, buffer: Buffer, source: int, nbytes: int, offset: int = 0) -> None:
        """Queue a copy from an address of the device, written by work queued on this stream, to byte ``offset`` of the buffer."""

    def zero(self, buffer: Buffer) -> None:
        """Queue a fill with zero bytes."""

    def read(self, buffer: Buffer, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
        """Wait for all queued work and copy out.  Raises DeviceError where that work failed."""

    def synchronize(self) -> None:
        """Wait for all queued work.  Raises DeviceError where it failed."""


class StagedMemory(ABC):
    """What implementations share: bounds, staging, the lock.  A subclass moves bytes: the abstract methods.

    The staging block is filled from its start to its end, then waited for; ``synchronize`` makes all of it free again.
    """

    stream: int

    def __init__(self) -> None:
        self._lock = RLock()
        self._staging: np.ndarray | None = None
        self._used = 0

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """See :class:`DeviceMemory`."""
        with self._lock, self._current():
            yield

    def upload(self, array: np.ndarray) -> Buffer:
        """See :class:`DeviceMemory`."""
        buffer = self.empty(max(array.nbytes, 1))
        self.write(buffer, array)
        return buffer

    def write(self, buffer: Buffer, array: np.ndarray, offset: int = 0) -> None:
        """See :class:`DeviceMemory`."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        _require_within(buffer, offset, data.size)
        for first in range(0, data.size, STAGING):
            piece = data[first : first + STAGING]
            block = self._block(piece.size)
            block[:] = piece
            self._copy_in(buffer, offset + first, block)

    def copy(self, buffer: Buffer, source: int, nbytes: int, offset: int = 0) -> None:
        """See :class:`DeviceMemory`."""
        _require_within(buffer, offset, nbytes)
        if nbytes:
            driver.copy(buffer.pointer + offset, source, nbytes, self.stream)

    def read(self, buffer: Buffer, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
        """See :class:`DeviceMemory`."""
        out = np.empty(shape, dtype)
        data = out.reshape(-1).view(np.uint8)
        _require_within(buffer, offset, data.size)
        for first in range(0, data.size, STAGING):
            piece = data[first : first + STAGING]
            block = self._block(piece.size)
            self._copy_out(buffer, offset + first, block)
            self.synchronize()
            piece[:] = block
        return out

    def synchronize(self) -> None:
        """See :class:`DeviceMemory`."""
        self._wait()
        self._used = 0

    def _block(self, nbytes: int) -> np.ndarray:
        """uint8 [nbytes] of staging memory that no queued copy uses."""
        if self._staging is None:
            self._staging = self._page_locked(STAGING)
        if self._used + nbytes > STAGING:
            self.synchronize()
        block = self._staging[self._used : self._used + nbytes]
        self._used += nbytes + -nbytes % ALIGNMENT
        return block

    @abstractmethod
    def empty(self, nbytes: int) -> Buffer:
        """See :class:`DeviceMemory`."""

    @abstractmethod
    def zero(self, buffer: Buffer) -> None:
        """See :class:`DeviceMemory`."""

    @abstractmethod
    def _current(self) -> AbstractContextManager[Any]:
        """The device's context is current on the calling thread inside."""

    @abstractmethod
    def _page_locked(self, nbytes: int) -> np.ndarray:
        """uint8 [nbytes] of host memory that the device copies from and to without the processor."""

    @abstractmethod
    def _copy_in(self, target: Buffer, offset: int, block: np.ndarray) -> None:
        """Queue a copy of page-locked ``block`` to the device."""

    @abstractmethod
    def _copy_out(self, source: Buffer, offset: int, block: np.ndarray) -> None:
        """Queue a copy from the device to page-locked ``block``."""

    @abstractmethod
    def _wait(self) -> None:
        """For all queued work."""


class DeviceOutputs(Mapping[str, np.ndarray]):
    """Arrays by name that were computed on the device and stay there; looking one up copies it to the host, once.

    What an encoder returns where the chain runs on the same device: the chain takes the feature where it is.
    """

    def __init__(self, memory: DeviceMemory, arrays: Mapping[str, DeviceArray]) -> None:
        self._memory = memory
        self._arrays = dict(arrays)
        self._host: dict[str, np.ndarray] = {}

    def on_device(self, name: str) -> DeviceArray:
        """The array where it is."""
        return self._arrays[name]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._host:
            array = self._arrays[name]
            with self._memory.exclusive():
                self._host[name] = self._memory.read(array.buffer, array.dtype, array.shape)
        return self._host[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _require_within(buffer: Buffer, offset: int, nbytes: int) -> None:
    if offset < 0 or nbytes < 0 or offset + nbytes > buffer.nbytes:
        raise ConfigError(f"{nbytes} bytes at {offset} do not fit a buffer of {buffer.nbytes}")
