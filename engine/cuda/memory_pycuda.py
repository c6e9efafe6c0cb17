"""Device memory from PyCUDA, in the device's primary context: the one that torch, CuPy and the CUDA runtime share.

PyCUDA keeps a stack of contexts a thread, refuses to free memory on a thread where its context is not current, and leaves a
released primary context current.  So the context is pushed around every use, frees included, and kept for the process's life.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
import pycuda.driver as cuda

from fusedx.engine.cuda import driver
from fusedx.engine.cuda.memory import Buffer, StagedMemory
from fusedx.engine.errors import DeviceError


class PyCUDAMemory(StagedMemory):
    """See :class:`fusedx.engine.cuda.memory.DeviceMemory`.  Makes its own stream."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self._index = index
        with self._current(), _errors("creating a stream"):
            self._stream = cuda.Stream()
        self.stream = int(self._stream.handle)
        weakref.finalize(self, _drop, self.__dict__, index).atexit = False

    def empty(self, nbytes: int) -> Buffer:
        """See the protocol."""
        with _errors(f"{nbytes} bytes of GPU memory"):
            owner = _Allocation(cuda.mem_alloc(nbytes), self._index)
        return Buffer(owner.pointer, nbytes, owner)

    def zero(self, buffer: Buffer) -> None:
        """See the protocol."""
        with _errors("filling GPU memory"):
            cuda.memset_d8_async(buffer.pointer, 0, buffer.nbytes, self._stream)

    @contextmanager
    def _current(self) -> Iterator[None]:
        with _pushed(self._index):
            yield

    def _page_locked(self, nbytes: int) -> np.ndarray:
        with _errors(f"{nbytes} bytes of page-locked memory"):
            return cuda.pagelocked_empty(nbytes, np.uint8)

    def _copy_in(self, target: Buffer, offset: int, block: np.ndarray) -> None:
        with _errors("copying to the GPU"):
            cuda.memcpy_htod_async(target.pointer + offset, block, self._stream)

    def _copy_out(self, source: Buffer, offset: int, block: np.ndarray) -> None:
        with _errors("copying from the GPU"):
            cuda.memcpy_dtoh_async(block, source.pointer + offset, self._stream)

    def _wait(self) -> None:
        with _errors("waiting for the GPU"):
            self._stream.synchronize()


class _Allocation:
    """Frees its memory on whatever thread drops it last."""

    def __init__(self, allocation: Any, index: int) -> None:
        self.pointer = int(allocation)
        weakref.finalize(self, _free, allocation, index).atexit = False  # the driver frees everything when the process ends


def _free(allocation: Any, index: int) -> None:
    with suppress(cuda.Error, DeviceError), _pushed(index):  # a lost device has lost its memory too
        allocation.free()


def _drop(attributes: dict[str, Any], index: int) -> None:
    """End a memory's stream, and give back its page-locked block, where the context is current."""
    with suppress(cuda.Error, DeviceError), _pushed(index):
        attributes.clear()


@cache
def _context(index: int) -> Any:
    with _errors(f"opening cuda:{index}"):
        cuda.init()
        context = cuda.Device(index).retain_primary_context()
    atexit.register(_detach, context)  # PyCUDA's own destructor releases a primary context in the wrong way, and says so
    return context


def _detach(context: Any) -> None:
    with suppress(cuda.Error):
        context.detach()


@contextmanager
def _pushed(index: int) -> Iterator[None]:
    context = _context(index)
    with _errors(f"making cuda:{index} current"):
        context.push()
    try:
        yield
    finally:
        cuda.Context.pop()


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """PyCUDA's errors as DeviceError with the advice of :mod:`fusedx.engine.cuda.driver`."""
    try:
        yield
    except cuda.MemoryError as error:
        raise DeviceError(f"{what}: {error}{driver.advice(driver.OUT_OF_MEMORY)}") from error
    except cuda.Error as error:
        raise DeviceError(f"{what}: {error}{driver.advice_for(str(error))}") from error
