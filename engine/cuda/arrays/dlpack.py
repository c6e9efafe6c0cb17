"""Arrays in GPU memory by DLPack, read with ctypes alone: torch, CuPy, JAX and others export it, none of them is imported.

The layout of the structures and the rules of the exchange are those of dlpack.h 1.x and of the Python array API standard,
``__dlpack__``: the consumer names the stream on which it will work, and the producer orders its own work before that stream.
"""

from __future__ import annotations

import ctypes
import operator
from typing import Any

import numpy as np

from fusedx.engine.cuda.arrays.foreign_array import ForeignArray, contiguous_strides
from fusedx.engine.errors import InputError

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
MAX_VERSION = (1, 0)
_KINDS = {0: "i", 1: "u", 2: "f"}  # DLDataTypeCode
_MAX_AXES = 8


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned; its predecessor DLManagedTensor starts with the tensor itself."""

    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("tensor", _DLTensor),
    )  # fmt: skip


def dlpack_device(source: Any) -> int | None:
    """The index of the CUDA device that ``source`` says it is on; None where it has no DLPack or is elsewhere.

    Raises InputError("bad_array") where asking fails.
    """
    if not (callable(getattr(source, "__dlpack__", None)) and callable(getattr(source, "__dlpack_device__", None))):
        return None
    try:
        kind, index = source.__dlpack_device__()
        kind, index = operator.index(kind), operator.index(index)
    except Exception as error:  # foreign code: it may raise anything
        raise InputError("bad_array", f"device array: __dlpack_device__ of {type(source).__name__} failed: {_said(error)}") from None
    return index if kind in (CUDA, CUDA_MANAGED) else None


def dlpack_array(source: Any, device: int, stream: int) -> ForeignArray:
    """``source``, which is on CUDA device ``device``, ordered before ``stream`` by its producer.

    The capsule is held, not consumed: the producer's own destructor gives the memory back when the last owner is gone.
    Raises InputError("bad_array").
    """
    capsule = _export(source, stream or 1)  # 0 is ambiguous and not allowed; 1 is the legacy default stream
    tensor = _tensor_in(capsule)
    if tensor.device_type not in (CUDA, CUDA_MANAGED) or tensor.device_id != device:
        exported = f"device type {tensor.device_type}, index {tensor.device_id}"
        raise InputError("bad_array", f"device array: announced on cuda:{device} and exported on {exported}")
    dtype, shape = _dtype(tensor), _axes(tensor, tensor.shape)
    if tensor.strides:
        strides = tuple(stride * dtype.itemsize for stride in _axes(tensor, tensor.strides))
    else:
        strides = contiguous_strides(shape, dtype.itemsize)
    return ForeignArray((tensor.data or 0) + tensor.byte_offset, device, shape, strides, dtype, None, capsule)


def _export(source: Any, stream: int) -> object:
    try:
        try:
            return source.__dlpack__(stream=stream, max_version=MAX_VERSION)
        except TypeError:  # a producer from before DLPack 1.0
            return source.__dlpack__(stream=stream)
    except Exception as error:
        raise InputError("bad_array", f"device array: __dlpack__ of {type(source).__name__} failed: {_said(error)}") from None


def _tensor_in(capsule: object) -> _DLTensor:
    """The structure inside a capsule; valid while the capsule lives."""
    address = _pointer_in(capsule, b"dltensor_versioned")
    if address is not None:
        managed = _Versioned.from_address(address)
        if managed.major != MAX_VERSION[0]:
            raise InputError("bad_array", f"device array: DLPack version {managed.major}.{managed.minor}; versions 0 and 1 are read")
        return managed.tensor
    address = _pointer_in(capsule, b"dltensor")
    if address is None:
        raise InputError("bad_array", f"device array: __dlpack__ returned {type(capsule).__name__}, not an unused DLPack capsule")
    return _DLTensor.from_address(address)


def _pointer_in(capsule: object, name: bytes) -> int | None:
    is_valid = ctypes.pythonapi.PyCapsule_IsValid
    is_valid.argtypes, is_valid.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.argtypes, pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
    return pointer(capsule, name) if is_valid(capsule, name) else None


def _dtype(tensor: _DLTensor) -> np.dtype:
    known = tensor.code in _KINDS and tensor.bits in (8, 16, 32, 64) and tensor.lanes == 1
    if not known or (tensor.code == 2 and tensor.bits == 8):
        kind = f"code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes"
        raise InputError("bad_array", f"device array: the DLPack data type of {kind} is not read")
    return np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")


def _axes(tensor: _DLTensor, numbers: Any) -> tuple[int, ...]:
    if not 0 <= tensor.ndim <= _MAX_AXES or (tensor.ndim and not numbers):
        raise InputError("bad_array", f"device array: a DLPack tensor of {tensor.ndim} axes is not read")
    return tuple(numbers[: tensor.ndim])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
