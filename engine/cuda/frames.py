"""Decoded frames, from the host or already on the GPU, to the network's input: every pixel is touched on the GPU alone.

The bits are those of engine/preprocess.py.  Frames of the GPU are read where they lie; frames of the host are cut to their centre
square and copied through page-locked memory, so that nothing here waits for the device.  All work goes to the current stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch

from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.errors import InputError
from fusedx.engine.preprocess import LEVEL_VALUES, SIZE, center_square, require_rgb
from fusedx.kernels.resize.triton import resize_normalize

Frame = ForeignArray | np.ndarray

#: Bytes of host frames that are copied and resized together; a single frame may be larger.
STAGED_BYTES = 64 << 20


class FramePreprocessor:
    """For one device, which must be the current one in every call.  Safe to share between threads.

    ``torch.device("cpu")`` serves tests with Triton's interpreter: foreign arrays are then addresses of this process.
    """

    def __init__(self, device: torch.device) -> None:
        indexed = device.type != "cuda" or device.index is not None
        self.device = device if indexed else torch.device("cuda", torch.cuda.current_device())
        self._values = torch.tensor(LEVEL_VALUES, device=self.device)
        self._reading: deque[tuple[torch.cuda.Event, list[object]]] = deque()
        self._lock = Lock()

    def run(self, frames: Sequence[Frame], out: torch.Tensor) -> None:
        """Queue the preprocessing of ``frames`` into ``out`` float32 [B, 3, 224, 224], any strides.

        A frame is uint8 [H, W, 3], RGB, of any size: a numpy array, which may be changed as soon as this returns, or a
        foreign array on this device, which may not be before the work has run and is kept alive until then.
        Raises InputError "bad_array", "empty" or "unsupported"; nothing is queued then.
        """
        for frame in frames:
            self._check(frame)
        if tuple(out.shape) != (len(frames), 3, SIZE, SIZE):
            raise ValueError(f"out: expected float32 [{len(frames)}, 3, {SIZE}, {SIZE}], got {list(out.shape)}")
        try:
            for first, group in _groups(frames):
                pixels = self._square_in_place(group[0]) if isinstance(group[0], ForeignArray) else self._uploaded(group)
                resize_normalize(pixels, self._values, out[first : first + len(group)])
        finally:  # where one fails, the device may still be reading those before it
            self._keep([frame for frame in frames if isinstance(frame, ForeignArray)])

    def copy(self, images: ForeignArray, out: torch.Tensor) -> None:
        """Queue a copy of images that are normalised already, float32 [B, 3, 224, 224] in both."""
        self._check_device(images)
        if images.dtype != np.float32 or images.shape != tuple(out.shape):
            raise InputError("bad_array", f"device array: expected float32 {list(out.shape)}, got {images.dtype} {list(images.shape)}")
        self._wait_for(images.stream)
        out.copy_(tensor_over(images, self.device), non_blocking=True)
        self._keep([images])

    def _square_in_place(self, frame: ForeignArray) -> torch.Tensor:
        """uint8 [1, side, side, 3]: a view of the frame's memory, once its producer is done with it."""
        self._wait_for(frame.stream)
        return tensor_over(frame.center_square(), self.device)[None]

    def _uploaded(self, frames: Sequence[Frame]) -> torch.Tensor:
        """uint8 [B, side, side, 3] on the device, from host frames whose centre squares have one size."""
        squares = [center_square(frame) for frame in frames if isinstance(frame, np.ndarray)]
        # torch's allocator keeps page-locked blocks for reuse, and does not reuse one before its copy has run.
        staged = torch.empty((len(squares), *squares[0].shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for row, square in zip(staged.numpy(), squares, strict=True):
            row[:] = square
        return staged.to(self.device, non_blocking=True)

    def _wait_for(self, stream: int | None) -> None:
        if stream is not None and self.device.type == "cuda":
            torch.cuda.current_stream(self.device).wait_stream(producer_stream(stream, self.device))

    def _keep(self, arrays: list[ForeignArray]) -> None:
        """Hold the owners until the device has passed this point, and let go of those it has passed."""
        if self.device.type != "cuda":
            return
        with self._lock:
            if arrays:
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(self.device))
                self._reading.append((event, [array.owner for array in arrays]))
            while self._reading and self._reading[0][0].query():
                self._reading.popleft()

    def _check(self, frame: Frame) -> None:
        require_rgb(frame)
        if isinstance(frame, ForeignArray):
            self._check_device(frame)

    def _check_device(self, array: ForeignArray) -> None:
        if self.device.type == "cuda" and array.device != self.device.index:
            raise InputError("unsupported", f"device array: it is on cuda:{array.device}, this model on {self.device}; copy it there")


def producer_stream(handle: int, device: torch.device) -> torch.cuda.Stream:
    """The stream of a foreign array as torch's object.

    torch marks its own streams by the lowest bit of their number, so 1, CUDA's name of the legacy default stream, cannot be
    wrapped like the handles of other libraries, which are addresses, or like 2, the per-thread default stream.
    """
    return torch.cuda.default_stream(device) if handle == 1 else torch.cuda.ExternalStream(handle, device=device)


def tensor_over(array: ForeignArray, device: torch.device) -> torch.Tensor:
    """The array's memory as a tensor, without a copy.  It does not keep the memory alive: see FramePreprocessor."""
    on_gpu = device.type == "cuda"
    view = _View(array, "__cuda_array_interface__" if on_gpu else "__array_interface__")
    tensor = torch.as_tensor(view, device=device) if on_gpu else torch.from_numpy(np.asarray(view))
    if tensor.data_ptr() != array.pointer:
        raise InputError("unsupported", f"device array: {array.pointer:#x} is not in the memory of {device}; copy it there")
    return tensor


class _View:
    """The description again, in the words of a protocol that torch or numpy reads; ordering is done already, so no stream."""

    def __init__(self, array: ForeignArray, protocol: str) -> None:
        description: dict[str, Any] = {
            "shape": array.shape, "strides": array.strides, "typestr": array.dtype.str, "data": (array.pointer, False), "version": 3,
        }  # fmt: skip
        setattr(self, protocol, description)


def _groups(frames: Sequence[Frame]) -> Iterator[tuple[int, list[Frame]]]:
    """Neighbours that can be resized together, each with the index of its first: host frames of one side, others alone."""
    first = 0
    while first < len(frames):
        end, side = first + 1, _side(frames[first])
        most = max(1, STAGED_BYTES // (side * side * 3))
        if not isinstance(frames[first], ForeignArray):
            while end < len(frames) and end - first < most and not isinstance(frames[end], ForeignArray) and _side(frames[end]) == side:
                end += 1
        yield first, list(frames[first:end])
        first = end


def _side(frame: Frame) -> int:
    return min(frame.shape[:2])
