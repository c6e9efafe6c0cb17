"""Decoded frames to the network's input on the GPU, by kernels/resize/resize.cu: the bits of engine/preprocess.py."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from fusedx.engine.cuda import binaries, driver
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.memory import Buffer, DeviceMemory
from fusedx.engine.errors import InputError
from fusedx.engine.preprocess import LEVEL_VALUES, SIZE, center_square, require_rgb
from fusedx.kernels.resize import cuda
from fusedx.kernels.resize.plan import tap_table

SOURCE = binaries.KERNELS / "resize" / "resize.cu"
#: A frame on the host, or one that lies on this GPU: uint8 [H,W,3], RGB, any strides.
Frame = np.ndarray | ForeignArray
#: Frame sizes whose weights stay on the device; a camera has one.
_TABLES = 16


def check_frame(frame: Frame, index: int) -> None:
    """InputError "bad_array", "empty" or "unsupported" for anything but a frame that cuda:``index`` can read."""
    if not isinstance(frame, (np.ndarray, ForeignArray)):
        raise InputError("bad_array", f"expected a uint8 array [H, W, 3] or a ForeignArray, got {type(frame).__name__}")
    require_rgb(frame)
    if isinstance(frame, ForeignArray) and frame.device != index:
        raise InputError("unsupported", f"device array: it is on cuda:{frame.device}, this model on cuda:{index}; copy it there")


class FrameResizer:
    """Crop, resize and normalisation of one frame after the other.  Call everything inside ``memory.exclusive()``."""

    def __init__(self, memory: DeviceMemory, gpu: GPU) -> None:
        self._memory = memory
        self._module = driver.Module(binaries.load(SOURCE, gpu.target), SOURCE.name)
        self._functions: dict[str, driver.Function] = {}
        self._values = memory.upload(LEVEL_VALUES)
        self._tables: OrderedDict[int, tuple[Buffer, Buffer, int]] = OrderedDict()
        self._frame, self._narrow = memory.empty(1), memory.empty(1)

    def run(self, frame: Frame, out: int) -> None:
        """Queue one frame -> float32 [3,224,224] at address ``out``.

        A host frame may change as soon as this returns; one on the device when the work is done.
        """
        square = self._square_on_device(frame) if isinstance(frame, ForeignArray) else self._square_of_host(frame)
        first, weight, most = self._table(square.side)
        self._narrow = self._grown(self._narrow, cuda.narrow_bytes(square.side, SIZE))
        buffers = cuda.Buffers(first.pointer, weight.pointer, self._values.pointer, self._narrow.pointer, out)
        for work in cuda.launches(square, most, SIZE, buffers):
            function = self._function(work.symbol)
            function.launch(work.arguments, grid=work.grid, block=work.block, stream=self._memory.stream)

    def digest(self, frame: Frame) -> str:
        """SHA-256 of the frame's RGB bytes, row by row; one on the device is copied to the host for it."""
        return hashlib.sha256(np.ascontiguousarray(self._on_host(frame)).data).hexdigest()

    def _on_host(self, frame: Frame) -> np.ndarray:
        """uint8 [H,W,3]."""
        if isinstance(frame, np.ndarray):
            return frame
        self._wait_for(frame)
        extent = 1 + sum((n - 1) * stride for n, stride in zip(frame.shape, frame.strides, strict=True))
        self._frame = self._grown(self._frame, extent)
        self._memory.copy(self._frame, frame.pointer, extent)
        span = self._memory.read(self._frame, np.uint8, (extent,))
        return np.lib.stride_tricks.as_strided(span, frame.shape, frame.strides, writeable=False)

    def _square_of_host(self, frame: np.ndarray) -> cuda.Square:
        square = center_square(frame)
        side = len(square)
        self._frame = self._grown(self._frame, square.size)
        self._memory.write(self._frame, square)
        return cuda.Square(self._frame.pointer, side, side * 3, 3, 1)

    def _square_on_device(self, frame: ForeignArray) -> cuda.Square:
        """A view of the frame's memory, once its producer is done with it."""
        self._wait_for(frame)
        square = frame.center_square()
        return cuda.Square(square.pointer, square.shape[0], *square.strides)

    def _wait_for(self, frame: ForeignArray) -> None:
        if frame.stream is not None:
            driver.wait_for(self._memory.stream, frame.stream)

    def _table(self, side: int) -> tuple[Buffer, Buffer, int]:
        """(first, weight, most) of plan.tap_table on the device."""
        if side not in self._tables:
            taps = tap_table(side, SIZE)
            self._tables[side] = self._memory.upload(taps.first), self._memory.upload(taps.weight), taps.most
            if len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(side)
        return self._tables[side]

    def _grown(self, buffer: Buffer, nbytes: int) -> Buffer:
        """Freeing the smaller one waits for the work that uses it."""
        return buffer if buffer.nbytes >= nbytes else self._memory.empty(nbytes)

    def _function(self, symbol: str) -> driver.Function:
        if symbol not in self._functions:
            self._functions[symbol] = self._module.function(symbol)
        return self._functions[symbol]
