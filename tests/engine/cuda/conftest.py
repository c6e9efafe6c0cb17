"""A GPU that is none: the fake driver, and PyCUDA on it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_driver
import fake_pycuda
import pytest

from fusedx.engine.cuda import driver


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake libcuda.so.1, compiled."""
    try:
        return fake_driver.build(tmp_path_factory.mktemp("fake-driver"))
    except FileNotFoundError:
        pytest.skip("the fake driver needs g++")


@pytest.fixture
def fake(fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_driver.FakeDriver]:
    """The driver of this process is the fake one, fresh."""
    monkeypatch.setattr(driver, "LIBRARY", str(fake_library))
    driver.library.cache_clear()
    made = fake_driver.FakeDriver(fake_library)
    made.reset()
    yield made
    driver.library.cache_clear()


@pytest.fixture
def pycuda(fake: fake_driver.FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_driver.FakeDriver]:
    """PyCUDA can be imported, and works on the fake driver."""
    for name, module in fake_pycuda.modules(fake.library).items():
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules.pop("fusedx.engine.cuda.memory_pycuda", None)
    yield fake
    sys.modules.pop("fusedx.engine.cuda.memory_pycuda", None)


@pytest.fixture(scope="session")
def chain_library() -> ctypes.CDLL:
    """The chain kernel's source, compiled for the CPU."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "cuda_on_cpu"))
    try:
        import chain_emulator
    finally:
        sys.path.pop(0)
    return chain_emulator.library()


@pytest.fixture(scope="session")
def resize_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The resize kernels' source, compiled for the CPU."""
    compiler, tests = shutil.which("g++"), Path(__file__).parents[2]
    if compiler is None:
        pytest.skip("compiling the kernels for the CPU needs g++")
    out = tmp_path_factory.mktemp("resize") / "libresize_on_cpu.so"
    kernels = tests.parent / "kernels" / "resize"
    flags = ("-std=c++20", "-O2", "-shared", "-fPIC", f"-I{kernels}")
    subprocess.run([compiler, *flags, tests / "kernels" / "resize_on_cpu.cpp", "-o", out], check=True)
    return ctypes.CDLL(str(out))
