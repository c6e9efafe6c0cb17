"""Arrays of other libraries that lie in GPU memory, by whichever of the two protocols they speak; neither library is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fusedx.engine.cuda.arrays.cuda_array_interface import interface_array, interface_of
from fusedx.engine.cuda.arrays.dlpack import dlpack_array, dlpack_device
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.cuda.arrays.pointer import device_of
from fusedx.engine.errors import InputError


def device_array(source: Any, *, device: int, stream: int, device_of: Callable[[int], int] = device_of) -> ForeignArray | None:
    """Whatever ``source`` describes by either protocol, or None where it describes nothing in CUDA memory.

    DLPack comes first: it names the device, and its producer orders its own work before ``stream``.
    """
    if isinstance(source, (type, np.ndarray)):  # a class has the protocols' names without being an array
        return None
    found = dlpack_device(source)
    if found is not None:
        _require_device(found, device)
        return dlpack_array(source, device, stream)
    interface = interface_of(source)
    if interface is None:
        return None
    array = interface_array(source, interface, device_of)
    _require_device(array.device, device)
    return array


def is_on_device(source: Any) -> bool:
    """Whether ``source`` says that it is an array in CUDA memory; nothing of it is looked at.  Raises InputError where asking fails."""
    if isinstance(source, (type, np.ndarray)):
        return False
    return dlpack_device(source) is not None or interface_of(source) is not None


def _require_device(found: int, wanted: int) -> None:
    if found != wanted:
        raise InputError(
            "unsupported",
            f"device array: it is on cuda:{found} and the model on cuda:{wanted}; copy it there or load the model on cuda:{found}",
        )
