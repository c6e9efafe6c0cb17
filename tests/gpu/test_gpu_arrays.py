"""Arrays that lie on the GPU, from several libraries and streams: the bits of the same array on the host, without a copy there."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from gpu_models import bits, opened, pictures

import fusedx
from fusedx.engine.errors import InputError

#: Long enough that whoever does not wait for it reads what was there before: 50 ms or more.
LONG = 100_000_000


@pytest.fixture
def model(small_model) -> fusedx.Model:
    return opened(small_model, "bf16")


class Interface:
    """A producer that knows __cuda_array_interface__ alone."""

    def __init__(self, tensor, stream: int | None) -> None:
        self._tensor = tensor
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape), "strides": tuple(n * tensor.element_size() for n in tensor.stride()),
            "typestr": {1: "|u1", 4: "<f4"}[tensor.element_size()], "data": (tensor.data_ptr(), False), "version": 3, "stream": stream,
        }  # fmt: skip


def late(pixels: np.ndarray):
    """(tensor, stream): zeros that become ``pixels`` on that stream, after a long kernel."""
    import torch

    source, side = torch.from_numpy(pixels.copy()).pin_memory(), torch.cuda.Stream()
    tensor = torch.zeros(pixels.shape, dtype=source.dtype, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(LONG)
        tensor.copy_(source, non_blocking=True)
    return tensor, side


def test_a_tensor_that_is_written_on_a_side_stream(model):
    """DLPack: the producer's current stream is the one that is waited for."""
    import torch

    pixels = pictures(3)[2]
    host = model.classify(pixels)
    tensor, side = late(pixels)
    with torch.cuda.stream(side):
        device = model.classify(tensor)
    assert bits(device) == bits(host)
    assert device.image_sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert device.source == "device array" and device.provenance["input"]["device"] == "cuda:0"


def test_an_interface_names_its_stream(model):
    pixels = pictures(3)[2]
    host = bits(model.classify(pixels))
    tensor, side = late(pixels)
    assert bits(model.classify(Interface(tensor, side.cuda_stream))) == host


def test_an_interface_of_the_legacy_default_stream(model):
    """torch's default stream is CUDA's legacy one, which the interface calls 1."""
    import torch

    pixels = pictures(1)[0]
    host = bits(model.classify(pixels))
    tensor = torch.zeros(pixels.shape, dtype=torch.uint8, device="cuda")
    source = torch.from_numpy(pixels).pin_memory()
    with torch.cuda.stream(torch.cuda.default_stream()):
        torch.cuda._sleep(LONG)
        tensor.copy_(source, non_blocking=True)
        assert bits(model.classify(Interface(tensor, 1))) == host


def test_an_interface_without_a_stream_is_ready(model):
    import torch

    pixels = pictures(1)[0]
    tensor = torch.from_numpy(pixels).cuda()
    torch.cuda.synchronize()
    assert bits(model.classify(Interface(tensor, None))) == bits(model.classify(pixels))


def test_cupy(model):
    cupy = pytest.importorskip("cupy")
    pixels = pictures(2)[1]
    with cupy.cuda.Stream(non_blocking=True):
        array = cupy.asarray(pixels) ^ cupy.uint8(255)
        assert bits(model.classify(array ^ cupy.uint8(255))) == bits(model.classify(pixels))


@pytest.mark.parametrize("view", [
    lambda a: a[::2, ::3], lambda a: a[5:-3, 7:], lambda a: a[..., 0], lambda a: a.swapaxes(0, 1), lambda a: a[..., :1].repeat(4, -1),
], ids=["strided", "offset", "grey", "transposed", "rgba"])  # fmt: skip
def test_views_are_read_where_they_lie(model, view):
    import torch

    pixels = np.random.default_rng(1).integers(0, 256, (101, 90, 3), np.uint8)
    device = torch.from_numpy(pixels).cuda()
    numpy_view = np.ascontiguousarray(view(pixels))
    device_view = view(device) if numpy_view.shape[2:] != (4,) else device[..., :1].repeat(1, 1, 4)
    assert bits(model.classify(device_view)) == bits(model.classify(numpy_view))


def test_host_and_device_pictures_in_one_batch(model):
    import torch

    images = pictures(6)
    mixed = [torch.from_numpy(image).cuda() if i % 2 else image for i, image in enumerate(images)]
    assert [bits(p) for p in model.classify(mixed)] == [bits(model.classify(image)) for image in images]
    assert [bits(p) for p in model.stream(mixed, 4)] == [bits(model.classify(image)) for image in images]


def test_a_picture_may_change_once_the_answer_is_there(model):
    """The owner is asked to leave it alone only until then."""
    import torch

    pixels = pictures(1)[0]
    host, tensor = bits(model.classify(pixels)), torch.from_numpy(pixels).cuda()
    for _ in range(20):
        assert bits(model.classify(tensor)) == host
        tensor.zero_()
        tensor.copy_(torch.from_numpy(pixels))


def test_normalised_images_on_the_device_are_traced(model):
    import torch

    x = np.stack([model.preprocess(model.read(picture)) for picture in pictures(3)])
    host = model.trace(x)
    tensor, side = late(x)
    with torch.cuda.stream(side):
        device = model.trace(tensor)
    assert host.keys() == device.keys()
    assert all(host[name].tobytes() == device[name].tobytes() for name in host)


def test_arrays_that_cannot_be_used_are_refused_with_a_reason(model):
    import torch

    for array, reason in (
        (torch.zeros(9, 9, 3, device="cuda"), "bad_array"),
        (torch.zeros(0, 9, 3, dtype=torch.uint8, device="cuda"), "empty"),
        (torch.zeros(9, 9, 2, dtype=torch.uint8, device="cuda"), "bad_array"),
    ):
        with pytest.raises(InputError) as caught:
            model.classify(array)
        assert caught.value.reason == reason
    assert model.classify(pictures(1)[0]).index >= 0
