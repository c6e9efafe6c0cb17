"""The driver's names and numbers against NVIDIA's header, and its calls and errors on a fake driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import fake_driver
import pytest

from fusedx.engine.cuda import driver
from fusedx.engine.errors import DeviceError, UnavailableError

STREAM = 0x7FFF_1234_5678  # does not fit an int, as a real one does not


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int64), ("y", ctypes.c_double)]


@pytest.fixture
def current(fake):
    """The fake device's context is current on this thread."""
    context = ctypes.c_void_p()
    fake.library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    fake.library.cuCtxPushCurrent_v2(context)
    yield fake
    fake.library.cuCtxPopCurrent_v2(ctypes.byref(context))


def launch(function, *, stream=STREAM, grid=(2, 1, 1), block=(64, 1, 1), **more) -> None:
    function.launch([Point(-5, 0.25), ctypes.c_int16(-7)], grid=grid, block=block, stream=stream, **more)


def synchronize(fake) -> int:
    return fake.library.cuStreamSynchronize(ctypes.c_void_p(STREAM))


def test_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or not (fake_driver.TOOLKIT / "cuda.h").is_file():
        pytest.skip("needs g++ and the CUDA toolkit's cuda.h")
    facts = {f"CU_DEVICE_ATTRIBUTE_{name}": number for name, number in driver.ATTRIBUTES.items()}
    facts |= {
        "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": driver.MAX_DYNAMIC_SHARED_SIZE_BYTES,
        "CU_EVENT_DISABLE_TIMING": driver.EVENT_DISABLE_TIMING,
        "CU_STREAM_NON_BLOCKING": driver.STREAM_NON_BLOCKING,
        "CUDA_ERROR_OUT_OF_MEMORY": driver.OUT_OF_MEMORY,
        "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE": driver.COOPERATIVE_LAUNCH_TOO_LARGE,
    }
    lost = ("DEVICE_UNAVAILABLE ECC_UNCORRECTABLE ILLEGAL_ADDRESS LAUNCH_TIMEOUT ASSERT HARDWARE_STACK_ERROR "
            "ILLEGAL_INSTRUCTION MISALIGNED_ADDRESS INVALID_ADDRESS_SPACE INVALID_PC LAUNCH_FAILED UNKNOWN")  # fmt: skip
    facts |= {f"CUDA_ERROR_{name}": number for name, number in zip(lost.split(), driver.LOST, strict=True)}
    source = tmp_path / "facts.cpp"
    lines = [f'static_assert(static_cast<int>({name}) == {number}, "{name}");' for name, number in facts.items()]
    source.write_text("#include <cuda.h>\n" + "\n".join(lines))
    command = [compiler, "-std=c++17", "-fsyntax-only", f"-I{fake_driver.TOOLKIT}", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(facts) > 20


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-absent.so.1")
    driver.library.cache_clear()
    with pytest.raises(UnavailableError, match="no NVIDIA driver is installed here"):
        driver.device_count()
    driver.library.cache_clear()


def test_a_driver_that_does_not_start(fake) -> None:
    fake.set(init_error=100)
    with pytest.raises(UnavailableError, match=r"does not start: CUDA_ERROR_NO_DEVICE \(100\)"):
        driver.device_count()
    fake.set(init_error=0)
    assert driver.device_count() == 1  # the refusal is not kept


def test_launch_hands_over_everything(current) -> None:
    seen = []

    def run(symbol, grid, block, shared, arguments, cooperative) -> int:
        point, number = Point.from_address(arguments[0]), ctypes.c_int16.from_address(arguments[1])
        seen.append((symbol, grid, block, shared, point.x, point.y, number.value, cooperative))
        return 0

    current.on_launch(run, {"fusedx_test": [ctypes.sizeof(Point), 2]})
    function = driver.Module(b"binary", "test.cu").function("fusedx_test", dynamic_shared=100_000)
    launch(function, shared=99_000, cooperative=True)
    launch(function, grid=(3, 2, 1), block=(32, 4, 2))
    assert seen == []  # queued
    assert synchronize(current) == 0
    assert seen == [
        ("fusedx_test", (2, 1, 1), (64, 1, 1), 99_000, -5, 0.25, -7, True),
        ("fusedx_test", (3, 2, 1), (32, 4, 2), 0, -5, 0.25, -7, False),
    ]


def test_one_stream_waits_for_another(current) -> None:
    order = []
    current.enqueue(0xABC0, lambda: order.append("producer"))
    driver.wait_for(STREAM, 0xABC0)
    current.enqueue(STREAM, lambda: order.append("consumer"))
    assert synchronize(current) == 0 and order == ["producer", "consumer"]


def test_a_binary_for_another_architecture(current) -> None:
    with pytest.raises(DeviceError, match=r"loading test\.cu: CUDA_ERROR_INVALID_IMAGE"):
        driver.Module(b"bad", "test.cu")


def test_an_absent_kernel_is_named(current) -> None:
    with pytest.raises(DeviceError, match=r"nothing in test\.cu: CUDA_ERROR_NOT_FOUND"):
        driver.Module(b"binary", "test.cu").function("nothing")


def test_more_shared_memory_than_there_is(current) -> None:
    with pytest.raises(DeviceError, match="fusedx_x: 240000 bytes of shared memory: CUDA_ERROR_INVALID_VALUE"):
        driver.Module(b"binary", "test.cu").function("fusedx_x", dynamic_shared=240_000)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"launch_error": 2}, "OUT_OF_MEMORY.*smaller batch"),
        ({"launch_error": 719}, "LAUNCH_FAILED.*load the model in a new process"),
        ({"cooperative": 0}, "NOT_SUPPORTED"),
        ({"sms": 1}, "COOPERATIVE_LAUNCH_TOO_LARGE.*Other work holds part of the GPU"),
        ({"sticky": 700}, r"ILLEGAL_ADDRESS.*outside its memory.*new process"),
    ],
)
def test_a_launch_that_fails(current, knobs: dict[str, int], says: str) -> None:
    function = driver.Module(b"binary", "test.cu").function("fusedx_test")
    current.set(**knobs)
    with pytest.raises(DeviceError, match=f"launching fusedx_test .*{says}"):
        launch(function, cooperative=True)


def test_no_context_is_an_error_and_not_a_crash(fake) -> None:
    with pytest.raises(DeviceError, match="INVALID_CONTEXT"):
        driver.Module(b"binary", "test.cu")


def test_advice_for_text_of_other_libraries(fake) -> None:
    assert "smaller batch" in driver.advice_for("cuMemAlloc failed: out of memory")
    assert "new process" in driver.advice_for("CUDA error: an illegal memory access was encountered")
    assert driver.advice_for("invalid argument") == ""
