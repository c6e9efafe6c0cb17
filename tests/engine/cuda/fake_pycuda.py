"""The part of ``pycuda.driver`` that fusedx calls, on the fake driver: same names, same signatures, same rules.

The rules that matter: one stack of contexts a thread; memory and streams belong to the context that was current when they were
made, and where PyCUDA would print a warning and leak (a release on a thread where that context is not current), this raises.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

RELEASED_ELSEWHERE: list[str] = []
_lib: Any = None
_local = threading.local()


class Error(Exception):
    pass


class MemoryError(Error):  # noqa: A001
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError(Error):  # noqa: A001
    pass


_KINDS = {2: MemoryError, 719: LaunchError, 701: LaunchError, 702: LaunchError, 100: RuntimeError, 214: RuntimeError, 999: Error}


def _check(call: str, *arguments: Any) -> None:
    code = getattr(_lib, call)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _lib.cuGetErrorString(code, ctypes.byref(text))
        raise _KINDS.get(code, LogicError)(f"{call.removesuffix('_v2')} failed: {text.value.decode()}")


def _stack() -> list[Context]:
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


def init(flags: int = 0) -> None:
    _check("cuInit", flags)


class Device:
    def __init__(self, number: int) -> None:
        self._device = ctypes.c_int()
        _check("cuDeviceGet", ctypes.byref(self._device), number)

    def retain_primary_context(self) -> Context:
        handle = ctypes.c_void_p()
        _check("cuDevicePrimaryCtxRetain", ctypes.byref(handle), self._device)
        return Context(handle)


class Context:
    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._handle = handle

    def push(self) -> None:
        _switch_away()
        _check("cuCtxPushCurrent_v2", self._handle)
        _stack().append(self)

    def detach(self) -> None:
        pass

    @staticmethod
    def pop() -> None:
        _switch_away()
        if not _stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        _stack().pop()
        if _stack():
            _check("cuCtxPushCurrent_v2", _stack()[-1]._handle)


def _switch_away() -> None:
    if _stack():
        _check("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


class _Dependent:
    def __init__(self) -> None:
        if not _stack():
            raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")
        self._context = _stack()[-1]

    def _require_current(self, what: str) -> bool:
        if not _stack() or _stack()[-1] is not self._context:
            RELEASED_ELSEWHERE.append(what)
            return False
        return True


class Stream(_Dependent):
    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self._stream = ctypes.c_void_p()
        _check("cuStreamCreate", ctypes.byref(self._stream), flags)

    @property
    def handle(self) -> int:
        return self._stream.value

    def synchronize(self) -> Stream:
        _check("cuStreamSynchronize", self._stream)
        return self

    def __del__(self) -> None:
        if hasattr(self, "_stream") and self._require_current("stream"):
            _lib.cuStreamDestroy_v2(self._stream)


class DeviceAllocation(_Dependent):
    def __init__(self, pointer: int) -> None:
        super().__init__()
        self._pointer: int | None = pointer

    def __int__(self) -> int:
        return self._pointer

    def free(self) -> None:
        if self._require_current("memory"):
            _lib.cuMemFree_v2(ctypes.c_uint64(self._pointer))  # PyCUDA prints a failure here and goes on
        self._pointer = None

    def __del__(self) -> None:
        if self._pointer is not None:
            self.free()


def mem_alloc(bytes: int) -> DeviceAllocation:  # noqa: A002
    pointer = ctypes.c_uint64()
    _check("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(bytes))
    return DeviceAllocation(pointer.value)


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = ctypes.c_void_p()
    _check("cuMemHostAlloc", ctypes.byref(memory), ctypes.c_size_t(nbytes), mem_flags)
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(memory.value), dtype).reshape(shape, order=order)


def memset_d8_async(dest: int, data: int, size: int, stream: Stream | None = None) -> None:
    _check("cuMemsetD8Async", ctypes.c_uint64(dest), ctypes.c_ubyte(data), ctypes.c_size_t(size), _handle(stream))


def memcpy_htod_async(dest: int, src: Any, stream: Stream | None = None) -> None:
    _check("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(dest), *_bytes_of(src), _handle(stream))


def memcpy_dtoh_async(dest: Any, src: int, stream: Stream | None = None) -> None:
    address, size = _bytes_of(dest)
    _check("cuMemcpyDtoHAsync_v2", address, ctypes.c_uint64(src), size, _handle(stream))


def _handle(stream: Stream | None) -> ctypes.c_void_p:
    return stream._stream if stream is not None else ctypes.c_void_p()


def _bytes_of(array: Any) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    array = np.asarray(array)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise BufferError("memoryview: underlying buffer is not contiguous")
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


def modules(library: ctypes.CDLL) -> dict[str, ModuleType]:
    """What to put into sys.modules."""
    global _lib
    _lib = library
    RELEASED_ELSEWHERE.clear()
    package = ModuleType("pycuda")
    package.__spec__ = ModuleSpec("pycuda", None, is_package=True)  # importlib.util.find_spec asks for it
    package.driver = sys.modules[__name__]
    return {"pycuda": package, "pycuda.driver": sys.modules[__name__]}
