"""Arrays in GPU memory as pictures and as network inputs, recognised without a GPU: addresses are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_fakes import ADDRESS, FakeDLPack, cai, interface, read, refused
from fusedx.engine import preprocess
from fusedx.engine.cuda.arrays import device_array
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray, contiguous_strides
from fusedx.engine.errors import InputError
from fusedx.inputs import ReadOptions
from fusedx.inputs.device import read_device_images


@pytest.mark.parametrize("shape, strides, notes", [
    ((20, 30), (30, 1, 0), {}),
    ((20, 30, 3), (90, 3, 1), {}),
    ((20, 30, 4), (120, 4, 1), {"alpha": "dropped"}),
])  # fmt: skip
def test_grey_rgb_and_rgba_become_rgb_in_place(shape, strides, notes):
    source = cai(interface(shape))
    picture = read(source)
    array = picture.array
    assert (array.shape, array.strides, array.pointer, array.device) == ((20, 30, 3), strides, ADDRESS, 0)
    assert array.dtype == np.uint8 and array.owner is source and picture.source == "device array"
    told = {"format": "device array", "dtype": "uint8", "shape": list(shape), "frame": 0, "frames": 1, "device": "cuda:0"}
    assert picture.notes == told | notes


def test_any_strides_and_read_only_data():
    array = read(cai(interface((20, 30, 3), strides=(1, 40, 1200), data=(ADDRESS + 5, True)))).array
    assert (array.strides, array.pointer) == ((1, 40, 1200), ADDRESS + 5)


@pytest.mark.parametrize("shape, typestr, reason, text", [
    ((20, 30), "<u2", "unsupported", "pass it as a numpy array"),
    ((20, 30, 3), "<u2", "bad_array", "got uint16 .20, 30, 3.; accepted are uint8"),
    ((20, 30, 3), "|i1", "bad_array", "got int8"), ((20, 30), "|b1", "bad_array", "got bool"),
    ((20, 30, 3), "<f4", "bad_array", "got float32"),
    ((3, 20, 30), "|u1", "bad_array", "got uint8 .3, 20, 30."), ((20, 30, 1), "|u1", "bad_array", "30, 1"),
    ((20,), "|u1", "bad_array", "got uint8 .20."), ((), "|u1", "bad_array", "got uint8"),
    ((1, 20, 30, 3), "|u1", "bad_array", "1, 20, 30, 3"),
    ((0, 30, 3), "|u1", "empty", "no elements"), ((20, 30, 0), "|u1", "empty", "no elements"), ((1, 30, 3), "|u1", "too_small", "30x1"),
    ((60000, 60000, 3), "|u1", "too_large", "the limit"),
])  # fmt: skip
def test_refuses_other_shapes_and_types(shape, typestr, reason, text):
    refused(cai(interface(shape, typestr)), reason, text)


def test_the_options_of_files_hold_here_too():
    refused(cai(interface((20, 30, 3))), "too_large", "600 pixels", options=ReadOptions(max_pixels=599))
    refused(cai(interface((20, 30, 3))), "no_such_frame", "frame 1", options=ReadOptions(frame=1))


def test_another_device_is_refused_by_name():
    refused(cai(interface()), "unsupported", "on cuda:2 and the model on cuda:0", device_of=lambda address: 2)
    refused(FakeDLPack(device=(2, 1)), "unsupported", "on cuda:1 and the model on cuda:0")


def test_the_square_is_that_of_the_host():
    for height, width in [(20, 30), (31, 20), (7, 7), (9, 4), (4, 9), (2, 5), (5, 2), (3, 5)]:
        pixels = np.zeros((height, width, 3), np.uint8)
        square = ForeignArray(pixels.ctypes.data, 0, pixels.shape, pixels.strides, pixels.dtype, None, pixels).center_square()
        expected = preprocess.center_square(pixels)
        assert (square.pointer, square.shape, square.strides) == (expected.ctypes.data, expected.shape, expected.strides)


@pytest.mark.parametrize("source", [
    "a.png", b"", 7, None, np.zeros((4, 4, 3), np.uint8), [], cai(None), type("T", (), {}),
    SimpleNamespace(__dlpack__=1, __dlpack_device__=2),
], ids=repr)  # fmt: skip
def test_leaves_the_rest_to_the_host(source):
    assert read(source) is None and read_device_images(source, device=0, stream=1) is None


def test_a_class_is_not_an_array():
    assert read(FakeDLPack) is None


def test_cpu_tensors_are_the_hosts():
    torch = pytest.importorskip("torch", reason="needs torch")
    assert read(torch.zeros((4, 4, 3), dtype=torch.uint8)) is None


def images(**changes: Any) -> ForeignArray | None:
    source = cai(interface(**{"shape": (2, 3, 224, 224), "typestr": "<f4"} | changes))
    return read_device_images(source, device=0, stream=1, device_of=lambda address: 0)


def test_normalised_images():
    array = images()
    assert array.shape == (2, 3, 224, 224) and array.dtype == np.float32 and array.strides == contiguous_strides(array.shape, 4)


@pytest.mark.parametrize("changes, text", [
    ({"typestr": "<f8"}, "expected float32"), ({"typestr": ">f4"}, "expected float32"), ({"typestr": "|u1"}, "expected float32"),
    ({"shape": (3, 224, 224)}, "expected float32 .B, 3"), ({"shape": (2, 3, 224, 225)}, "expected float32"),
    ({"shape": (2, 1, 224, 224)}, "expected float32"),
    ({"data": (ADDRESS + 2, False)}, "not aligned"), ({"strides": (602113, 200704, 896, 4)}, "not aligned"),
])  # fmt: skip
def test_refuses_other_images(changes, text):
    with pytest.raises(InputError, match=text) as caught:
        images(**changes)
    assert caught.value.reason == "bad_array"


def test_whatever_lies_there():
    array = device_array(cai(interface((4,), "<i8")), device=0, stream=1, device_of=lambda address: 0)
    assert array.shape == (4,) and array.strides == (8,) and array.dtype == np.int64
