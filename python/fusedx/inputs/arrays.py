"""NumPy arrays as pictures."""

from __future__ import annotations

import numpy as np

from fusedx.engine.errors import InputError
from fusedx.inputs.limits import check_frame, check_size
from fusedx.inputs.options import ReadOptions
from fusedx.inputs.picture import Picture
from fusedx.inputs.scaling import grey_to_rgb, stretch_to_uint8

ACCEPTED = "uint8 [H, W] (grey), uint8 [H, W, 3] (RGB), uint8 [H, W, 4] (RGBA, alpha dropped) or uint16 [H, W] (grey)"


def read_array(array: np.ndarray, options: ReadOptions) -> Picture:
    """Copy an array of any strides and byte order into a picture; see :data:`ACCEPTED`, else InputError("bad_array")."""
    if array.size == 0 and array.ndim > 0:
        raise InputError("empty", f"array: shape {list(array.shape)} has no pixels")
    byte, word = array.dtype == np.uint8, array.dtype.kind == "u" and array.dtype.itemsize == 2
    grey = array.ndim == 2 and (byte or word)
    colour = array.ndim == 3 and byte and array.shape[2] in (3, 4)
    if not (grey or colour):
        raise InputError("bad_array", f"array: got {array.dtype} {list(array.shape)}; accepted are {ACCEPTED}")
    check_frame(options.frame, 1, "array")
    check_size(array.shape[1], array.shape[0], options, "array")

    plain = np.asarray(array)
    notes: dict[str, object] = {"format": "array", "dtype": str(array.dtype), "shape": list(array.shape), "frame": 0, "frames": 1}
    if colour:
        if array.shape[2] == 4:
            notes["alpha"] = "dropped"
        return Picture.of(plain[:, :, :3], "array", notes)
    values = stretch_to_uint8(plain, "array", notes, "grey16_range") if word else plain
    return Picture.of(grey_to_rgb(values), "array", notes)
