"""Sources that look as if they lay in GPU memory, for both protocols, and how the tests read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusedx.engine.cuda.arrays import dlpack
from fusedx.engine.errors import InputError
from fusedx.inputs import ReadOptions
from fusedx.inputs.device import DevicePicture, read_device

ADDRESS = 0x7F0000000000
STREAM = 0x55AA00  # the consumer's


def interface(shape: tuple = (20, 30, 3), typestr: Any = "|u1", **changes: Any) -> dict:
    return {"shape": shape, "typestr": typestr, "data": (ADDRESS, False), "version": 3, "stream": None} | changes


def cai(description: Any) -> Any:
    return SimpleNamespace(__cuda_array_interface__=description)


def read(source: Any, options: ReadOptions | None = None, **changes: Any) -> DevicePicture | None:
    where = {"device": 0, "stream": STREAM, "device_of": lambda address: 0} | changes
    return read_device(source, options or ReadOptions(), **where)


def refused(source: Any, reason: str, text: str, **changes: Any) -> None:
    with pytest.raises(InputError, match=text) as caught:
        read(source, **changes)
    assert caught.value.reason == reason


class FakeDLPack:
    """A CUDA array, as far as anyone can tell: capsules are numpy's own, with the device rewritten."""

    def __init__(self, pixels: np.ndarray | None = None, device: Any = (2, 0), inside: Any = None, versions: bool = True) -> None:
        self.pixels = np.zeros((6, 8, 3), np.uint8) if pixels is None else pixels
        self.device, self.inside, self.versions = device, inside or device, versions
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> Any:
        if isinstance(self.device, Exception):
            raise self.device
        return self.device

    def __dlpack__(self, *, stream: Any, **more: Any) -> Any:
        if more and not self.versions:
            raise TypeError("unexpected keyword argument")
        self.streams.append(stream)
        capsule = self.pixels.__dlpack__(**more)
        tensor = dlpack._tensor_in(capsule)
        tensor.device_type, tensor.device_id = self.inside
        return capsule
