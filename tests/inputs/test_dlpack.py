"""DLPack capsules: real ones, made by numpy and torch, with their fields rewritten where a GPU or a mistake is wanted."""

from __future__ import annotations

import ctypes
import gc
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_fakes import STREAM, FakeDLPack, interface, read, refused
from fusedx.engine.cuda.arrays import dlpack


@pytest.mark.parametrize("versions", [True, False], ids=["1.x", "0.x"])
@pytest.mark.parametrize("kind", [2, 13], ids=["memory", "managed"])
def test_reads_capsules_in_place(versions, kind):
    pixels = np.arange(20 * 30 * 4, dtype=np.uint8).reshape(20, 30, 4)[2:, ::3]
    source = FakeDLPack(pixels, (kind, 0), versions=versions)
    array = read(source).array
    assert (array.pointer, array.shape, array.strides) == (pixels.ctypes.data, (18, 10, 3), pixels.strides)
    assert array.stream is None and source.streams == [STREAM]  # its producer has put its work before our stream


def test_the_null_stream_is_named_1():
    source = FakeDLPack()
    read(source, stream=0)
    assert source.streams == [1]


@pytest.mark.parametrize("versions", [True, False])
def test_holds_the_memory_for_exactly_as_long_as_the_picture_lives(versions):
    pixels = np.zeros((6, 8, 3), np.uint8)
    before = sys.getrefcount(pixels)
    picture = read(FakeDLPack(pixels, versions=versions))
    gc.collect()
    assert sys.getrefcount(pixels) == before + 1  # the source is gone, the capsule holds
    del picture
    gc.collect()
    assert sys.getrefcount(pixels) == before


@pytest.mark.parametrize("device, text", [
    (RuntimeError("lost"), "RuntimeError: lost"), ((2,), "__dlpack_device__"), (("cuda", 0), "__dlpack_device__"), (7, "__dlpack_device__"),
])  # fmt: skip
def test_refuses_broken_device_answers(device, text):
    refused(FakeDLPack(device=device), "bad_array", text)


@pytest.mark.parametrize("kind", [1, 3, 8, 10, 14])
def test_other_kinds_of_device_are_not_ours(kind):
    assert read(FakeDLPack(device=(kind, 0))) is None


@pytest.mark.parametrize("inside", [(1, 0), (2, 1), (10, 0)])
def test_refuses_a_capsule_from_elsewhere(inside):
    refused(FakeDLPack(inside=inside), "bad_array", "announced on cuda:0")


@pytest.mark.parametrize("export, text", [
    (lambda **_: 1 / 0, "ZeroDivisionError"), (lambda **_: None, "returned NoneType"), (lambda **_: object(), "returned object"),
    (lambda: None, "TypeError"),
])  # fmt: skip
def test_refuses_broken_exports(export, text):
    refused(SimpleNamespace(__dlpack__=export, __dlpack_device__=lambda: (2, 0)), "bad_array", text)


def test_refuses_a_capsule_that_someone_consumed():
    source = FakeDLPack()
    capsule = source.__dlpack__(stream=1)
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
    name = b"used_dltensor"
    rename(capsule, name)
    refused(SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (2, 0)), "bad_array", "not an unused DLPack capsule")
    rename(capsule, b"dltensor")


def patched(**fields: Any) -> Any:
    """A source whose capsule says something else than numpy wrote; the fields are put back before numpy frees it."""

    class Patched(FakeDLPack):
        def __dlpack__(self, **arguments: Any) -> Any:
            capsule = super().__dlpack__(**arguments)
            tensor = dlpack._tensor_in(capsule)
            for name, value in fields.items():
                setattr(tensor, name, value)
            return capsule

    return Patched()


@pytest.mark.parametrize("fields, text", [
    ({"code": 6}, "code 6"), ({"code": 4, "bits": 16}, "code 4"), ({"lanes": 3}, "3 lanes"), ({"bits": 4}, "4 bits"),
    ({"code": 2}, "code 2, 8 bits"),
    ({"ndim": -1}, "-1 axes"), ({"ndim": 2**30}, "axes"), ({"data": None}, "cannot be device memory"),
    ({"byte_offset": 2**64 - 1}, "cannot be device memory"), ({"bits": 16}, "got uint16"), ({"shape": None}, "axes"),
])  # fmt: skip
def test_refuses_broken_tensors(fields, text):
    refused(patched(**fields), "bad_array", text)


def test_no_strides_means_contiguous_and_the_offset_counts():
    source = patched(strides=None, byte_offset=7)
    array = read(source).array
    assert array.strides == (24, 3, 1) and array.pointer == source.pixels.ctypes.data + 7


def test_refuses_a_newer_layout():
    class Newer(FakeDLPack):
        def __dlpack__(self, **arguments: Any) -> Any:
            capsule = super().__dlpack__(**arguments)
            dlpack._Versioned.from_address(dlpack._pointer_in(capsule, b"dltensor_versioned")).major = 2
            return capsule

    refused(Newer(), "bad_array", "DLPack version 2")


def test_torchs_capsules_are_read():
    torch = pytest.importorskip("torch", reason="needs torch")
    tensor = torch.arange(5 * 7 * 3, dtype=torch.uint8).reshape(5, 3, 7).permute(0, 2, 1)
    for arguments in ({"max_version": (1, 0)}, {}):
        capsule = tensor.__dlpack__(**arguments)
        inside = dlpack._tensor_in(capsule)
        assert (inside.data or 0) + inside.byte_offset == tensor.data_ptr()
        assert tuple(inside.shape[:3]) == tuple(tensor.shape) and tuple(inside.strides[:3]) == tensor.stride()
        assert dlpack._dtype(inside) == np.uint8


def test_dlpack_comes_first_where_both_are_there():
    source = FakeDLPack()
    source.__cuda_array_interface__ = interface((6, 8, 3), version=2)
    assert read(source).array.pointer == source.pixels.ctypes.data
