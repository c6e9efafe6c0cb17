"""Arrays in GPU memory by ``__cuda_array_interface__``: PyCUDA, CuPy, Numba, torch and others have it, none of them is imported.

The rules are those of the CUDA Array Interface, version 3 (Numba's documentation).  It does not name the device, which the
address decides.  Version 3 says on which stream the data are produced.  Earlier versions say nothing; their producers work on
the legacy default stream unless told otherwise, so that is the one that is waited for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fusedx.engine.cuda.arrays.foreign_array import ForeignArray, contiguous_strides
from fusedx.engine.errors import InputError

VERSIONS = (0, 1, 2, 3)
LEGACY_STREAM = 1


def interface_of(source: Any) -> Any | None:
    """The attribute, or None where there is none.  Raises InputError("bad_array") where reading it fails."""
    try:
        return getattr(source, "__cuda_array_interface__", None)
    except Exception as error:  # a property of foreign code: it may raise anything, torch does for tensors with gradients
        raise _bad(f"__cuda_array_interface__ of {type(source).__name__} failed: {type(error).__name__}: {error}") from None


def interface_array(source: Any, interface: Any, device_of: Callable[[int], int]) -> ForeignArray:
    """What ``interface`` describes, kept alive by ``source``; ``device_of`` gives the device of an address.

    Raises InputError: "bad_array", "empty", or "unsupported" for a masked array.
    """
    if not isinstance(interface, Mapping):
        raise _bad(f"__cuda_array_interface__ is a {type(interface).__name__}, not a dict")
    version = _integer(interface, "version", interface.get("version"))
    if version not in VERSIONS:
        raise _bad(f"__cuda_array_interface__ version {version}; versions {VERSIONS[0]} to {VERSIONS[-1]} are read")
    if interface.get("mask") is not None:
        raise InputError("unsupported", "device array: masked arrays are not read; fill the masked pixels and pass the data alone")
    dtype, shape = _dtype(interface), _integers(interface, "shape")
    given = interface.get("strides")
    strides = contiguous_strides(shape, dtype.itemsize) if given is None else _integers(interface, "strides")
    pointer = _pointer(interface)
    if 0 in shape:
        raise InputError("empty", f"device array: shape {list(shape)} has no elements")
    stream = _stream(interface, version)
    array = ForeignArray(pointer, -1, shape, strides, dtype, stream, source)  # checked before the driver sees the address
    return replace(array, device=device_of(pointer))


def _stream(interface: Mapping, version: int) -> int | None:
    if version < 3:
        return LEGACY_STREAM
    if interface.get("stream") is None:
        return None
    stream = _integer(interface, "stream", interface["stream"])
    if stream < 1:
        raise _bad(f"stream {stream} is not allowed; 1 is the legacy default stream, 2 the per-thread one, others are handles")
    return stream


def _dtype(interface: Mapping) -> np.dtype:
    typestr = interface.get("typestr")
    try:
        if isinstance(typestr, str):
            return np.dtype(typestr)
    except (TypeError, ValueError):
        pass
    raise _bad(f"typestr {typestr!r} is not a numpy type")


def _pointer(interface: Mapping) -> int:
    data = interface.get("data")
    if not isinstance(data, tuple) or len(data) != 2:
        raise _bad(f"data is {data!r}, expected (address, read-only)")
    return _integer(interface, "data", data[0])


def _integers(interface: Mapping, name: str) -> tuple[int, ...]:
    values = interface.get(name)
    if not isinstance(values, tuple):
        raise _bad(f"{name} is {values!r}, expected a tuple of integers")
    return tuple(_integer(interface, name, value) for value in values)


def _integer(interface: Mapping, name: str, value: Any) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise _bad(f"{name} is {interface.get(name)!r}, expected integers")


def _bad(text: str) -> InputError:
    return InputError("bad_array", f"device array: {text}")
