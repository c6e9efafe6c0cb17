"""Arrays that already lie in GPU memory as pictures or as network inputs, without a copy and without importing their library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fusedx.engine.cuda.arrays import device_array
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.cuda.arrays.pointer import device_of
from fusedx.engine.errors import InputError
from fusedx.engine.manifest import IMAGE_SIZE
from fusedx.inputs.limits import check_frame, check_size
from fusedx.inputs.options import ReadOptions

ACCEPTED = "uint8 [H, W] (grey), uint8 [H, W, 3] (RGB) or uint8 [H, W, 4] (RGBA, alpha dropped)"

_DEFAULT = ReadOptions()


@dataclass(frozen=True, eq=False)
class DevicePicture:
    """A decoded picture in GPU memory, not copied and not yet read: whoever passed it must leave it unchanged until the answer.

    array: uint8 [H, W, 3], RGB; grey repeats one channel by a stride of 0, and alpha is stepped over.
    source: "device array".  notes: every choice that was made, JSON-serialisable.
    """

    array: ForeignArray
    source: str
    notes: dict[str, object] = field(default_factory=dict)


def read_device(
    source: Any, options: ReadOptions = _DEFAULT, *, device: int, stream: int, device_of: Callable[[int], int] = device_of
) -> DevicePicture | None:
    """``source`` as a picture where it lies, or None where it is not in CUDA memory and so the host's to read or to refuse.

    source: anything with ``__dlpack__`` or ``__cuda_array_interface__``: see :data:`ACCEPTED`.  device, stream: index and stream
    handle on which the picture will be used.  ``device_of`` gives the device of an address.
    Raises InputError as :func:`fusedx.inputs.read` does, "unsupported" for arrays on another device, of 16 bits, or masked.
    """
    array = device_array(source, device=device, stream=stream, device_of=device_of)
    if array is None:
        return None
    shape, dtype = array.shape, array.dtype
    if dtype == np.uint16 and len(shape) == 2:
        raise InputError("unsupported", "device array: 16-bit grey is scaled by its extremes on the host; pass it as a numpy array")
    if dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise InputError("bad_array", f"device array: got {dtype} {list(shape)}; accepted are {ACCEPTED}")
    check_frame(options.frame, 1, "device array")
    check_size(shape[1], shape[0], options, "device array")
    notes: dict[str, object] = {
        "format": "device array", "dtype": str(dtype), "shape": list(shape), "frame": 0, "frames": 1, "device": f"cuda:{array.device}",
    }  # fmt: skip
    if shape[2:] == (4,):
        notes["alpha"] = "dropped"
    strides = array.strides if len(shape) == 3 else (*array.strides, 0)
    return DevicePicture(replace(array, shape=(*shape[:2], 3), strides=strides), "device array", notes)


def read_device_images(source: Any, *, device: int, stream: int, device_of: Callable[[int], int] = device_of) -> ForeignArray | None:
    """float32 [B, 3, 224, 224], already normalised, where it lies; None where it is not in CUDA memory.

    Arguments as for :func:`read_device`.  Values are not looked at.  Raises InputError.
    """
    array = device_array(source, device=device, stream=stream, device_of=device_of)
    if array is not None and (array.dtype != np.float32 or array.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE)):
        expected = f"float32 [B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}]"
        raise InputError("bad_array", f"device array: expected {expected}, normalised, got {array.dtype} {list(array.shape)}")
    return array
