"""The CUDA Array Interface, by fakes: what versions 0 to 3 say, and what hostile ones say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_fakes import ADDRESS, cai, interface, read, refused
from fusedx.engine.cuda import driver
from fusedx.engine.cuda.arrays import pointer
from fusedx.engine.cuda.arrays.foreign_array import MAX_EXTENT


@pytest.mark.parametrize("changes, stream", [
    ({"stream": None}, None), ({"stream": 1}, 1), ({"stream": 2}, 2), ({"stream": 0x5000}, 0x5000),
    ({"version": 2}, 1), ({"version": 0}, 1),
    ({"version": 2, "stream": 0x5000}, 1), ({"stream": np.int64(64)}, 64),
])  # fmt: skip
def test_orders_after_the_stream_of_the_producer(changes, stream):
    assert read(cai(interface(**changes))).array.stream == stream


def test_entries_that_may_be_missing():
    description = interface()
    del description["stream"]
    array = read(cai(description)).array
    assert array.stream is None and array.strides == (90, 3, 1)
    assert read(cai(interface(strides=None, mask=None, descr=[("", "|u1")]))).array.strides == (90, 3, 1)


@pytest.mark.parametrize("changes, text", [
    ({"stream": 0}, "stream 0 is not allowed"), ({"stream": -1}, "stream -1"), ({"stream": "1"}, "stream is '1'"),
    ({"stream": True}, "stream is True"),
    ({"version": 4}, "version 4; versions 0 to 3"), ({"version": "3"}, "version is '3'"), ({"version": None}, "version is None"),
    ({"typestr": "nonsense"}, "typestr 'nonsense'"), ({"typestr": 8}, "typestr 8"), ({"typestr": None}, "typestr None"),
    ({"data": ADDRESS}, "expected .address, read-only."), ({"data": (None, False)}, "data is"), ({"data": (1.5, False)}, "data is"),
    ({"data": (0, False)}, "cannot be device memory"), ({"data": (-4096, False)}, "cannot be device memory"),
    ({"data": (2**64 - 100, False)}, "cannot be device memory"), ({"data": (2**80, False)}, "cannot be device memory"),
    ({"shape": [20, 30, 3]}, "shape is .*expected a tuple"), ({"shape": (20, 30, 3.0)}, "shape is"),
    ({"shape": (-20, 30, 3)}, "do not belong"), ({"shape": (20, True, 3)}, "shape is"),
    ({"strides": (90, 3)}, "do not belong together"), ({"strides": (-90, 3, 1)}, "run backwards"), ({"strides": "931"}, "strides is"),
    ({"strides": (2**62, 3, 1)}, "cannot be device memory"), ({"strides": (2**200, 3, 1)}, "cannot be device memory"),
    ({"strides": (MAX_EXTENT, 3, 1)}, "cannot be device memory"), ({"shape": (2**70, 30, 3)}, "cannot be device memory"),
])  # fmt: skip
def test_refuses_broken_interfaces(changes, text):
    def never(address: int) -> int:
        raise AssertionError("the driver must not see such an address")

    refused(cai(interface(**changes)), "bad_array", text, device_of=never)


@pytest.mark.parametrize("key", ["shape", "typestr", "data", "version"])
def test_refuses_missing_entries(key):
    description = interface()
    del description[key]
    refused(cai(description), "bad_array", key)


def test_refuses_masks_and_other_things_than_a_dict():
    refused(cai(interface(mask=cai(interface()))), "unsupported", "masked arrays")
    for other in ("text", 5, [("shape", (1,))]):
        refused(cai(other), "bad_array", "not a dict")


def test_a_property_that_raises():
    class Hostile:
        @property
        def __cuda_array_interface__(self) -> dict:
            raise RuntimeError("requires grad, use detach()")

    refused(Hostile(), "bad_array", "Hostile failed: RuntimeError: requires grad")


def test_the_driver_is_asked_for_the_device_of_an_address(monkeypatch):
    asked = []

    def ask(result: Any, attribute: int, address: Any) -> int:
        asked.append((attribute, address.value))
        result._obj.value = 3
        return 0 if address.value == ADDRESS else 1

    monkeypatch.setattr(driver, "library", lambda: SimpleNamespace(cuPointerGetAttribute=ask))
    assert pointer.device_of(ADDRESS) == 3 and asked == [(9, ADDRESS)]
    unknown = cai(interface(data=(4096, False)))
    refused(unknown, "bad_array", "0x1000 is not an address that the CUDA driver knows", device_of=pointer.device_of)
