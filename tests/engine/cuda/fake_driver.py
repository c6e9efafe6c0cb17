"""Builds and drives the fake ``libcuda.so.1`` of fake_driver.cpp."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
TOOLKIT = Path("/usr/local/cuda/include")
#: symbol, grid, block, bytes of shared memory, addresses of the arguments, cooperative -> CUresult, found by whoever waits
Launcher = Callable[[str, tuple[int, ...], tuple[int, ...], int, Sequence[int], bool], int]
_SHAPE = ctypes.POINTER(ctypes.c_uint)
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, _SHAPE, _SHAPE, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)
_WORK = ctypes.CFUNCTYPE(ctypes.c_int)


def build(folder: Path) -> Path:
    """Compile the library into ``folder``; against the toolkit's cuda.h where that is installed."""
    compiler, out = shutil.which("g++"), folder / "libcuda.so.1"
    if compiler is None:
        raise FileNotFoundError("g++")
    toolkit = [f"-I{TOOLKIT}"] if (TOOLKIT / "cuda.h").is_file() else []
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Werror", *toolkit, HERE / "fake_driver.cpp", "-o", out]
    subprocess.run(command, check=True)
    return out


class FakeDriver:
    """The loaded library.  ``memory`` in bytes and the other knobs are named in fake_driver.cpp."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        for name in ("fake_calls", "fake_used"):
            getattr(self.library, name).restype = ctypes.c_longlong
        self._counts: dict[str, int] = {}
        self._callbacks: list[object] = []  # kept: the library holds bare pointers to them

    def set(self, **knobs: int) -> None:
        """Turn knobs."""
        for name, value in knobs.items():
            self.library.fake_set(name.encode(), ctypes.c_longlong(value))

    def calls(self, name: str) -> int:
        """How often a function was called."""
        return int(self.library.fake_calls(name.encode()))

    def used(self) -> int:
        """Bytes allocated."""
        return int(self.library.fake_used())

    def adopt(self, pointer: int, nbytes: int) -> None:
        """Host memory as device memory of another library."""
        self.library.fake_adopt(ctypes.c_uint64(pointer), ctypes.c_size_t(nbytes))

    def reset(self) -> None:
        """A fresh driver; allocations stay."""
        self.library.fake_reset()

    def on_launch(self, launcher: Launcher, arguments: dict[str, Sequence[int]]) -> None:
        """Who runs launches; symbol -> bytes of each argument."""

        def called(symbol, grid, block, shared, addresses, cooperative) -> int:  # noqa: ANN001
            name = symbol.decode()
            return launcher(name, tuple(grid[:3]), tuple(block[:3]), shared, addresses[: self._counts[name]], bool(cooperative))

        for symbol, sizes in arguments.items():
            self.arguments(symbol, sizes)
        self._callbacks.append(_CALLBACK(called))
        self.library.fake_on_launch(self._callbacks[-1])

    def arguments(self, symbol: str, sizes: Sequence[int]) -> None:
        """Bytes of each argument of a kernel."""
        self._counts[symbol] = len(sizes)
        self.library.fake_arguments(symbol.encode(), (ctypes.c_int * len(sizes))(*sizes), len(sizes))

    def enqueue(self, stream: int, work: Callable[[], object]) -> None:
        """Queue ``work`` on a stream; what it raises is a failed launch."""

        def called() -> int:
            work()
            return 0

        self._callbacks.append(_WORK(called))
        self.library.fake_enqueue(ctypes.c_void_p(stream), self._callbacks[-1])
