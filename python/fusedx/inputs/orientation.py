"""EXIF orientation: what it says, and turning pixels accordingly."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

#: EXIF tag 274, values 2..8 (CIPA DC-008, 4.6.4 A): from stored [H, W, 3] to upright.
_TURNS = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p[::-1].swapaxes(0, 1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p[:, ::-1].swapaxes(0, 1),
}


def found_in(image: Image.Image) -> int | str | None:
    """Return the orientation 1..8 that the file states, None, or "unreadable" for damaged or impossible EXIF."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF is an accessory: its damage does not make the pixels unusable
        return "unreadable"
    if value is None:
        return None
    return value if type(value) is int and 1 <= value <= 8 else "unreadable"


def upright(pixels: np.ndarray, orientation: int | str | None) -> np.ndarray:
    """Turn stored pixels [H, W, 3] as the orientation says; a view, unchanged for 1, None and "unreadable"."""
    return _TURNS[orientation](pixels) if orientation in _TURNS else pixels
