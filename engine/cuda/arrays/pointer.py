"""Which GPU an address belongs to, asked of the CUDA driver, for arrays whose protocol does not say."""

from __future__ import annotations

import ctypes

from fusedx.engine.cuda import driver
from fusedx.engine.errors import InputError

_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL of cuda.h


def device_of(pointer: int) -> int:
    """The index of the device that an address was allocated on.

    Raises InputError("bad_array") where the driver does not know the address, UnavailableError where there is no driver.
    """
    ordinal = ctypes.c_int(-1)
    code = driver.library().cuPointerGetAttribute(ctypes.byref(ordinal), _DEVICE_ORDINAL, ctypes.c_uint64(pointer))
    if code:
        raise InputError("bad_array", f"device array: {pointer:#x} is not an address that the CUDA driver knows (CUresult {code})")
    return ordinal.value
