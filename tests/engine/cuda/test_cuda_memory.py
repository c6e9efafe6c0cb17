"""Device memory by PyCUDA on the fake driver, whose queued work runs when it is waited for and not before."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import fake_pycuda
import numpy as np
import pytest

from fusedx.engine.cuda import memory as memories
from fusedx.engine.cuda.memory import DeviceArray, DeviceOutputs
from fusedx.engine.errors import ConfigError, DeviceError


@pytest.fixture
def memory(pycuda):
    from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

    made = PyCUDAMemory(0)
    with made.exclusive():
        yield made


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.arange(np.prod(shape, dtype=int)) % 251).astype(dtype).reshape(shape)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (3, 5, 7), (memories.STAGING // 4 * 2 + 3,)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_there_and_back(memory, shape: tuple[int, ...], dtype: str) -> None:
    x = array(*shape, dtype=dtype)
    assert np.array_equal(memory.read(memory.upload(x), x.dtype, x.shape), x)


def test_strided_arrays_arrive_in_c_order(memory) -> None:
    x = array(6, 8)[::2, 1::3].T
    assert np.array_equal(memory.read(memory.upload(x), x.dtype, x.shape), x)


def test_the_source_may_change_at_once(memory) -> None:
    x = array(1000)
    buffer = memory.upload(x)
    x[:] = -1
    assert np.array_equal(memory.read(buffer, x.dtype, x.shape), array(1000))


def test_more_writes_than_the_staging_block_holds(memory) -> None:
    """The block is used again while copies out of it are queued, unless they are waited for."""
    size = memories.STAGING // 5 + 13
    arrays = [np.full(size, i, np.uint8) for i in range(12)]
    buffers = [memory.upload(x) for x in arrays]
    for x, buffer in zip(arrays, buffers, strict=True):
        assert np.array_equal(memory.read(buffer, np.uint8, (size,)), x)


def test_offsets_copies_and_zeros(memory) -> None:
    target, source = memory.empty(64), memory.upload(array(64, dtype="uint8"))
    memory.zero(target)
    memory.copy(target, source.pointer + 20, 5, 10)
    memory.write(target, np.array([7, 8], np.uint8), 62)
    expected = np.zeros(64, np.uint8)
    expected[10:15], expected[62:] = np.arange(20, 25), (7, 8)
    assert np.array_equal(memory.read(target, np.uint8, (64,)), expected)
    assert np.array_equal(memory.read(target, np.uint8, (3,), offset=61), [0, 7, 8])


@pytest.mark.parametrize(
    "call",
    [
        lambda m, b: m.write(b, np.zeros(9, np.uint8)),
        lambda m, b: m.write(b, np.zeros(1, np.uint8), 8),
        lambda m, b: m.write(b, np.zeros(1, np.uint8), -1),
        lambda m, b: m.read(b, np.float64, (2,)),
        lambda m, b: m.copy(b, b.pointer, 4, 5),
        lambda m, b: m.copy(b, b.pointer, -1),
    ],
)
def test_nothing_leaves_its_buffer(memory, call) -> None:
    with pytest.raises(ConfigError, match="do not fit a buffer of 8"):
        call(memory, memory.empty(8))


def test_memory_that_is_full(memory, pycuda) -> None:
    pycuda.set(memory=pycuda.used() + 100)
    with pytest.raises(DeviceError, match="101 bytes of GPU memory: cuMemAlloc failed: out of memory. .*use a smaller batch"):
        memory.empty(101)
    assert memory.empty(100).nbytes == 100


def test_a_lost_device_says_to_start_again(memory, pycuda) -> None:
    buffer = memory.empty(8)
    pycuda.set(sticky=700)
    for call in (lambda: memory.empty(8), lambda: memory.zero(buffer), memory.synchronize):
        with pytest.raises(DeviceError, match="illegal memory access.*load the model in a new process"):
            call()


@pytest.mark.parametrize("knob", ["init_error", "context_error"])
def test_a_device_that_does_not_open(pycuda, knob: str) -> None:
    from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

    pycuda.set(**{knob: 2})
    with pytest.raises(DeviceError, match="opening cuda:0: .*out of memory"):
        PyCUDAMemory(0)


def test_freed_on_another_thread(pycuda) -> None:
    """PyCUDA leaks what is dropped on a thread where its context is not current."""
    from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

    before = pycuda.used()
    held = [PyCUDAMemory(0)]
    with held[0].exclusive():
        held.append(held[0].upload(array(100)))
    assert pycuda.used() == before + 400

    def drop() -> None:
        held.clear()
        gc.collect()

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert pycuda.used() == before and fake_pycuda.RELEASED_ELSEWHERE == []


def test_exclusive_is_nested_and_leaves_no_context_behind(pycuda) -> None:
    from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

    memory = PyCUDAMemory(0)
    with memory.exclusive(), memory.exclusive():
        buffer = memory.upload(array(3))
    assert fake_pycuda._stack() == []
    with pytest.raises(DeviceError, match="invalid device context"):
        memory.synchronize()
    with pytest.raises(ZeroDivisionError), memory.exclusive():
        raise ZeroDivisionError
    assert fake_pycuda._stack() == [] and buffer.nbytes == 12


def test_threads_take_turns(pycuda) -> None:
    from fusedx.engine.cuda.memory_pycuda import PyCUDAMemory

    memory = PyCUDAMemory(0)
    with memory.exclusive():
        buffer = memory.empty(4000)

    def there_and_back(i: int) -> bool:
        x = np.full(1000, i, np.float32)
        with memory.exclusive():
            memory.write(buffer, x)
            return bool((memory.read(buffer, np.float32, (1000,)) == i).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(40)))


def test_outputs_are_copied_to_the_host_when_they_are_asked_for(memory, pycuda) -> None:
    arrays = {"prior": array(2, 5), "cells": array(2, 6, dtype="int64")}
    outputs = DeviceOutputs(memory, {name: DeviceArray(memory.upload(x), x.dtype, x.shape) for name, x in arrays.items()})
    assert list(outputs) == ["prior", "cells"] and len(outputs) == 2 and outputs.on_device("prior").shape == (2, 5)
    facts = outputs.on_device("cells").__cuda_array_interface__
    assert (facts["version"], facts["typestr"], facts["strides"], facts["stream"]) == (3, "<i8", None, None)
    assert facts["data"] == (outputs.on_device("cells").buffer.pointer, False)
    copies = pycuda.calls("cuMemcpyDtoHAsync")
    assert np.array_equal(outputs["prior"], arrays["prior"]) and outputs["prior"] is outputs["prior"]
    assert pycuda.calls("cuMemcpyDtoHAsync") == copies + 1
    assert {name: x.tolist() for name, x in outputs.items()} == {name: x.tolist() for name, x in arrays.items()}
    with pytest.raises(KeyError):
        outputs["feature"]
