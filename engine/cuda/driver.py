"""The CUDA driver through ctypes: devices, modules and launches.

torch and PyCUDA each own memory, streams and contexts in their own way; what both lack, or offer differently, is here once:
facts about a device without creating a context on it, loading a binary, and cooperative launches.  Every call works on the
context that is current on the calling thread.  Names and numbers are those of the CUDA Driver API (cuda.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from fusedx.engine.errors import DeviceError, UnavailableError

LIBRARY = "libcuda.so.1"

#: CUdevice_attribute
ATTRIBUTES = {
    "MULTIPROCESSOR_COUNT": 16,
    "L2_CACHE_SIZE": 38,
    "COMPUTE_CAPABILITY_MAJOR": 75,
    "COMPUTE_CAPABILITY_MINOR": 76,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 81,
    "MAX_REGISTERS_PER_MULTIPROCESSOR": 82,
    "COOPERATIVE_LAUNCH": 95,
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 97,
}
#: CUfunction_attribute
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
#: CUevent_flags
EVENT_DISABLE_TIMING = 2
#: CUstream_flags: does not wait for the legacy default stream, nor that for it
STREAM_NON_BLOCKING = 1

OUT_OF_MEMORY = 2
COOPERATIVE_LAUNCH_TOO_LARGE = 720
#: Results after which the context is unusable and the process has to start again.
LOST = {
    46: "the GPU is used by another process exclusively",
    214: "an uncorrectable memory error (ECC)",
    700: "a kernel read or wrote outside its memory",
    702: "a kernel ran into the display's time limit",
    710: "an assertion failed in a kernel",
    714: "a hardware stack error",
    715: "an illegal instruction",
    716: "a misaligned address",
    717: "an invalid address space",
    718: "an invalid program counter",
    719: "a kernel failed",
    999: "unknown; the driver's log (dmesg, Xid) says more",
}


@cache
def library() -> ctypes.CDLL:
    """The driver's library, initialised.  Raises UnavailableError with the reason where there is none."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError:
        raise UnavailableError(f"no NVIDIA driver is installed here ({LIBRARY} is not found)") from None
    code = cuda.cuInit(0)
    if code:
        raise UnavailableError(f"the NVIDIA driver does not start: {_describe(cuda, code)}")
    return cuda


def _describe(cuda: ctypes.CDLL, code: int) -> str:
    return f"{_text(cuda, 'cuGetErrorName', code)} ({code}): {_text(cuda, 'cuGetErrorString', code)}"


def _text(cuda: ctypes.CDLL, function: str, code: int) -> str:
    text = ctypes.c_char_p()
    getattr(cuda, function)(code, ctypes.byref(text))
    return (text.value or b"?").decode(errors="replace")


def check(code: int, what: str) -> None:
    """Raise DeviceError for anything but success, saying what can be done about it."""
    if not code:
        return
    raise DeviceError(f"{what}: {_describe(library(), code)}{advice(code)}")


def advice(code: int) -> str:
    """What can be done about a result, as the end of a sentence; empty where the text of the error is all there is."""
    if code == OUT_OF_MEMORY:
        return ". The GPU's memory is full: use a smaller batch, fewer draws, a smaller precision, or free it in other processes"
    if code in LOST:
        return f". The GPU stopped this process's work ({LOST[code]}); load the model in a new process"
    if code == COOPERATIVE_LAUNCH_TOO_LARGE:
        return ". Other work holds part of the GPU (MPS, MIG), or the kernel was planned for another one"
    return ""


def advice_for(message: str) -> str:
    """:func:`advice` for another library's text, which quotes the driver's own words and not always the number."""
    cuda = library()
    for code in (OUT_OF_MEMORY, *LOST):
        if _text(cuda, "cuGetErrorString", code) in message:
            return advice(code)
    return ""


def driver_version() -> str:
    """The newest CUDA version that the installed driver runs, such as ``13.0``."""
    number = ctypes.c_int()
    check(library().cuDriverGetVersion(ctypes.byref(number)), "cuDriverGetVersion")
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def device_count() -> int:
    """GPUs that this process may see (CUDA_VISIBLE_DEVICES counts)."""
    number = ctypes.c_int()
    check(library().cuDeviceGetCount(ctypes.byref(number)), "cuDeviceGetCount")
    return number.value


def attribute(device: int, name: str) -> int:
    """One of :data:`ATTRIBUTES`."""
    value = ctypes.c_int()
    check(library().cuDeviceGetAttribute(ctypes.byref(value), ATTRIBUTES[name], device), f"cuDeviceGetAttribute {name}")
    return value.value


def device_name(device: int) -> str:
    """The product's name."""
    buffer = ctypes.create_string_buffer(256)
    check(library().cuDeviceGetName(buffer, len(buffer), device), "cuDeviceGetName")
    return buffer.value.decode(errors="replace")


def total_memory(device: int) -> int:
    """Bytes."""
    value = ctypes.c_size_t()
    check(library().cuDeviceTotalMem_v2(ctypes.byref(value), device), "cuDeviceTotalMem")
    return value.value


@cache
def _primary_context(device: int) -> ctypes.c_void_p:
    """The context that torch, CuPy and the CUDA runtime use; kept until the process ends, as theirs is."""
    context = ctypes.c_void_p()
    check(library().cuDevicePrimaryCtxRetain(ctypes.byref(context), device), f"opening cuda:{device}")
    return context


@contextmanager
def current(device: int) -> Iterator[None]:
    """Inside, the device's primary context is current on the calling thread.

    torch makes it current with its first call on a thread that needs the runtime, which may come after ours.
    """
    check(library().cuCtxPushCurrent_v2(_primary_context(device)), f"making cuda:{device} current")
    try:
        yield
    finally:
        library().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def copy(target: int, source: int, nbytes: int, stream: int) -> None:
    """Queue a copy between two addresses of the device."""
    addresses = ctypes.c_uint64(target), ctypes.c_uint64(source)
    code = library().cuMemcpyDtoDAsync_v2(*addresses, ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))
    check(code, f"copying {nbytes} bytes on the GPU")


def new_stream() -> int:
    """A CUstream of the current context."""
    stream = ctypes.c_void_p()
    check(library().cuStreamCreate(ctypes.byref(stream), STREAM_NON_BLOCKING), "creating a stream")
    assert stream.value is not None
    return stream.value


def wait_for(stream: int, other: int) -> None:
    """Work queued on ``stream`` from now on starts when what is queued on ``other`` now is done."""
    cuda, event = library(), ctypes.c_void_p()
    check(cuda.cuEventCreate(ctypes.byref(event), EVENT_DISABLE_TIMING), "creating an event")
    try:
        check(cuda.cuEventRecord(event, ctypes.c_void_p(other)), "recording an event")
        check(cuda.cuStreamWaitEvent(ctypes.c_void_p(stream), event, 0), "waiting for an event")
    finally:
        cuda.cuEventDestroy_v2(event)  # the driver keeps it until it has happened


class Module:
    """A loaded binary (cubin or fatbin), for the context that is current now.  It stays loaded until that context ends."""

    def __init__(self, image: bytes, name: str) -> None:
        self._image = image  # the driver may read it later
        self._handle = ctypes.c_void_p()
        self._name = name
        check(library().cuModuleLoadData(ctypes.byref(self._handle), self._image), f"loading {name}")

    def function(self, symbol: str, *, dynamic_shared: int = 0) -> Function:
        """An ``extern "C"`` kernel, allowed to use so many bytes of dynamic shared memory."""
        handle = ctypes.c_void_p()
        check(library().cuModuleGetFunction(ctypes.byref(handle), self._handle, symbol.encode()), f"{symbol} in {self._name}")
        if dynamic_shared:
            code = library().cuFuncSetAttribute(handle, MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_shared)
            check(code, f"{symbol}: {dynamic_shared} bytes of shared memory")
        return Function(handle, symbol, self)


class Function:
    """A kernel that can be launched."""

    def __init__(self, handle: ctypes.c_void_p, symbol: str, module: Module) -> None:
        self.handle, self.symbol, self._module = handle, symbol, module

    def launch(
        self,
        arguments: Sequence[ctypes._SimpleCData | ctypes.Structure],
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: int,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Queue the kernel on ``stream`` (a CUstream as an integer).  The arguments are copied before this returns.

        cooperative: all blocks run at the same time, or the launch fails; needed by kernels that wait for each other.
        """
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        shape = (*map(ctypes.c_uint, (*grid, *block)), ctypes.c_uint(shared), ctypes.c_void_p(stream))
        cuda = library()
        if cooperative:
            code = cuda.cuLaunchCooperativeKernel(self.handle, *shape, pointers)
        else:
            code = cuda.cuLaunchKernel(self.handle, *shape, pointers, None)
        check(code, f"launching {self.symbol} with {grid} blocks of {block} threads")
