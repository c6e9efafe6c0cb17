"""How to launch resize.cu through the CUDA driver: symbols, grids and arguments.  Touches no device and needs no framework."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

#: Threads of a block: the 224 outputs of the published networks fill it, seven warps without a remainder.
THREADS = 224


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.  ``arguments`` have exactly the C types, in the kernel's order."""

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[ctypes._SimpleCData, ...]


@dataclass(frozen=True, slots=True)
class Square:
    """A square uint8 frame in device memory: address, side in pixels, strides in bytes (channel 0 for grey), none negative."""

    pointer: int
    side: int
    row_stride: int
    column_stride: int
    channel_stride: int


@dataclass(frozen=True, slots=True)
class Buffers:
    """Addresses in device memory, all C-contiguous; m is the size of the output, n the side of the frame.

    first int32 [m] and weight int32 [most, m]: plan.tap_table(n, m).  values float32 [3, 256]: what a level becomes.
    narrow uint8 [n, 3, m]: scratch, see narrow_bytes.  out float32 [3, m, m].
    """

    first: int
    weight: int
    values: int
    narrow: int
    out: int


def narrow_bytes(side: int, size: int) -> int:
    """Bytes of scratch between the two kernels."""
    return side * 3 * size


def launches(frame: Square, most: int, size: int, buffers: Buffers) -> tuple[Launch, Launch]:
    """The two launches, in order and on one stream.  ``most``: rows of the weight table.  Raises ValueError for impossible sizes."""
    if not (1 <= frame.side < 2**31 and 1 <= size <= 65535 and most >= 1):
        raise ValueError(f"side, size, most: expected 1 .. 2^31 - 1, 1 .. 65535 and at least 1, got {frame.side}, {size}, {most}")
    if min(frame.row_stride, frame.column_stride, frame.channel_stride) < 0:
        raise ValueError("strides: expected none negative")
    pointer, stride, count = ctypes.c_uint64, ctypes.c_int64, ctypes.c_int32
    across = (
        pointer(frame.pointer), stride(frame.row_stride), stride(frame.column_stride), stride(frame.channel_stride),
        count(frame.side), pointer(buffers.first), pointer(buffers.weight), count(most), count(size), pointer(buffers.narrow),
    )  # fmt: skip
    down = (
        pointer(buffers.narrow), count(frame.side), pointer(buffers.first), pointer(buffers.weight), count(most), count(size),
        pointer(buffers.values), pointer(buffers.out),
    )  # fmt: skip
    columns = -(-size // THREADS)
    block = (THREADS, 1, 1)
    return (
        Launch("fusedx_resize_across", (frame.side, columns, 1), block, across),
        Launch("fusedx_resize_down", (size, columns, 3), block, down),
    )
