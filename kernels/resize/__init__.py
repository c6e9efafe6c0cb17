"""Bilinear resize of 8-bit images, antialiased when it shrinks, with the bits of Pillow's ``Image.resize``."""

from __future__ import annotations

import operator

import numpy as np

from fusedx.kernels.native_module import native
from fusedx.kernels.resize import reference

__all__ = ["bilinear"]


def bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, C] of any strides, C being 1 or 3 -> uint8 [height, width, C]."""
    is_array = isinstance(pixels, np.ndarray)
    if not is_array or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        found = f"{pixels.dtype} {list(pixels.shape)}" if is_array else type(pixels).__name__
        raise ValueError(f"pixels: expected uint8 [H, W, 1 or 3] with at least one pixel, got {found}")
    height, width = operator.index(height), operator.index(width)
    if height < 1 or width < 1:
        raise ValueError(f"height, width: expected at least 1 each, got {height}, {width}")
    return native.resize_bilinear(pixels, height, width) if native else reference.bilinear(pixels, height, width)
