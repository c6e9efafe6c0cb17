"""An array that lies in a GPU's memory and belongs to someone else, described by plain numbers; never dereferenced here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fusedx.engine.errors import InputError
from fusedx.engine.preprocess import square_place

#: Bytes from the first to the last element beyond which a description cannot be true: several times any GPU's memory.
MAX_EXTENT = 1 << 42


@dataclass(frozen=True, eq=False, slots=True)
class ForeignArray:
    """pointer: address of the first element, valid on CUDA device ``device``; nothing is known about what lies around it.

    shape, strides (in bytes, none negative, zero where an axis repeats) and dtype as numpy has them.
    stream: handle of the CUDA stream whose work so far must end before the data may be read (1: the legacy default stream,
    2: the per-thread one), or None where there is nothing to wait for.
    owner: what keeps the memory alive; hold on to it until the GPU has read the data, not just until the work is queued.

    Raises InputError "empty" or "bad_array" for a description that cannot be true.
    """

    pointer: int
    device: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    stream: int | None
    owner: object

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.shape) or min(self.shape, default=0) < 0:
            raise InputError("bad_array", f"device array: shape {list(self.shape)} and strides {list(self.strides)} do not belong together")
        if 0 in self.shape:
            raise InputError("empty", f"device array: shape {list(self.shape)} has no elements")
        if min(self.strides, default=0) < 0:
            raise InputError("bad_array", f"device array: strides {list(self.strides)} run backwards; pass a contiguous copy")
        extent = self.dtype.itemsize + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if extent > MAX_EXTENT or not 0 < self.pointer <= 2**64 - extent:
            raise InputError("bad_array", f"device array: {extent} bytes at address {self.pointer:#x} cannot be device memory")
        if any(at % self.dtype.alignment for at in (self.pointer, *self.strides)):
            where = f"address {self.pointer:#x}, strides {list(self.strides)}"
            raise InputError("bad_array", f"device array: {self.dtype} elements are not aligned at {where}")

    def center_square(self) -> ForeignArray:
        """The centre square of a picture [H, W, C], as :func:`fusedx.engine.preprocess.center_square` cuts it; no data moves."""
        height, width, channels = self.shape
        top, left, side = square_place(height, width)
        corner = self.pointer + top * self.strides[0] + left * self.strides[1]
        return replace(self, pointer=corner, shape=(side, side, channels))


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of a C-contiguous array."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
