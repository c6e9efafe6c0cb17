"""From 8-bit RGB of any size to the network's input, bit for bit as the published pipeline does it.

Crop the centre square, resize it on 8-bit values, then scale and normalise in float32.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fusedx.engine.errors import InputError
from fusedx.engine.manifest import IMAGE_SIZE, Preprocessing
from fusedx.kernels.resize import bilinear

SIZE = IMAGE_SIZE
MEAN, STD = Preprocessing().mean, Preprocessing().std


def _normalised_values() -> np.ndarray:
    """float32 [3, 256]: (u / 255 - mean) / std for every 8-bit u, each operation rounded to float32 as torchvision does."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = np.array(MEAN, np.float32)[:, None], np.array(STD, np.float32)[:, None]
    table = (scaled[None, :] - mean) / std
    table.setflags(write=False)
    return table


#: float32 [3, 256]: what each 8-bit level becomes in each channel.
LEVEL_VALUES = _normalised_values()


def square_place(height: int, width: int) -> tuple[int, int, int]:
    """(top, left, side) of the centre square, side = min(H, W); half a pixel is rounded to even, as torchvision does."""
    side = min(height, width)
    return round((height - side) / 2), round((width - side) / 2), side


def center_square(pixels: np.ndarray) -> np.ndarray:
    """[H, W, C] -> [side, side, C], a view."""
    top, left, side = square_place(*pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def to_square_uint8(pixels: np.ndarray, size: int = SIZE) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size, size, 3]: centre square, then antialiased bilinear resize.

    Raises InputError "bad_array" or "empty".
    """
    require_rgb(pixels)
    return bilinear(center_square(pixels), size, size)


def normalize(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [3, H, W]: (u / 255 - MEAN) / STD.  Raises InputError "bad_array" or "empty"."""
    require_rgb(pixels)
    return np.stack([LEVEL_VALUES[channel][pixels[..., channel]] for channel in range(3)])


class _Described(Protocol):
    """What arrays of the host and descriptions of foreign ones have."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def require_rgb(pixels: _Described) -> None:
    """Raise InputError "bad_array" or "empty" for anything but uint8 [H, W, 3]."""
    if pixels.dtype != np.uint8 or len(pixels.shape) != 3 or pixels.shape[2] != 3:
        raise InputError("bad_array", f"expected uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    if 0 in pixels.shape:
        raise InputError("empty", f"an array of shape {list(pixels.shape)} has no pixels")
