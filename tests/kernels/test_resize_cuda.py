"""resize.cu without a GPU: its semantics with g++, its machine code for every target with nvcc, and how it is launched."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fusedx.engine import preprocess
from fusedx.kernels.resize import cuda, reference
from fusedx.kernels.resize.plan import tap_table
from fusedx.kernels.target import TARGETS

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "kernels" / "resize" / "resize.cu"
SYMBOLS = ("fusedx_resize_across", "fusedx_resize_down")


def build(folder: Path, *flags: str) -> Path:
    """resize.cu compiled by g++, through the loops of resize_on_cpu.hpp."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    output = folder / "resize_on_cpu"
    common = ("-std=c++20", "-O2", "-Wall", "-Werror", f"-I{SOURCE.parent}")
    command = [compiler, *common, *flags, HERE / "resize_on_cpu.cpp", "-o", output]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return output


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """As a library; an integer overflow ends the process."""
    flags = ("-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    return ctypes.CDLL(str(build(tmp_path_factory.mktemp("library"), *flags)))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a program that the address sanitizer watches."""
    return build(tmp_path_factory.mktemp("program"), "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def launch(library: ctypes.CDLL, work: cuda.Launch) -> None:
    addresses = (ctypes.c_void_p * len(work.arguments))(*(ctypes.addressof(a) for a in work.arguments))
    index = ctypes.c_uint * 3
    getattr(library, f"run_{work.symbol}")(index(*work.grid), index(*work.block), addresses)


def resized(library: ctypes.CDLL, pixels: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """float32 [3, size, size] of a square view.  Buffers have guards on both sides, which must survive."""
    side, table = len(pixels), tap_table(len(pixels), size)
    narrow = np.full(cuda.narrow_bytes(side, size) + 128, 0xAB, np.uint8)
    out = np.full(3 * size * size + 128, np.nan, np.float32)
    frame = cuda.Square(pixels.ctypes.data, side, *pixels.strides)
    pointers = (table.first.ctypes.data, table.weight.ctypes.data, values.ctypes.data, narrow.ctypes.data + 64, out.ctypes.data + 256)
    for work in cuda.launches(frame, table.most, size, cuda.Buffers(*pointers)):
        launch(library, work)
    assert (narrow[:64] == 0xAB).all() and (narrow[-64:] == 0xAB).all()
    assert np.isnan(out[:64]).all() and np.isnan(out[-64:]).all()
    return out[64:-64].reshape(3, size, size)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(height * 10007 + width).integers(-80, 336, (height, width, channels))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def model_values() -> np.ndarray:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    return np.ascontiguousarray(preprocess.normalize(levels)[..., 0])


@pytest.mark.parametrize("side", [1, 2, 3, 17, 63, 223, 224, 225, 257, 512, 1411])
def test_has_the_bits_of_the_host(on_cpu, side):
    pixels = picture(side, side)
    expected = preprocess.normalize(preprocess.to_square_uint8(pixels))
    assert np.array_equal(resized(on_cpu, pixels, model_values(), 224), expected)


@pytest.mark.parametrize("size", [1, 63, 100, 225, 257, 448])
def test_any_size_of_the_output(on_cpu, size):
    """Sizes that no block divides; the look-up is the identity, with the channel in it."""
    values = (np.arange(256)[None] + 1000 * np.arange(3)[:, None]).astype(np.float32)
    pixels = picture(130, 130)
    expected = reference.bilinear(pixels, size, size).transpose(2, 0, 1) + 1000 * np.arange(3)[:, None, None]
    assert np.array_equal(resized(on_cpu, pixels, values, size), expected)


VIEWS = {
    "crop": lambda p: p[3:60, 20:77],
    "every second": lambda p: p[:100:2, :100:2],
    "rgba": lambda p: np.concatenate([p, p[..., :1]], axis=2)[:77, :77, :3],
    "planes": lambda p: np.ascontiguousarray(p.transpose(2, 0, 1)).transpose(1, 2, 0),
    "transposed": lambda p: p.transpose(1, 0, 2),
    "grey": lambda p: np.broadcast_to(p[:, :, :1], p.shape),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_any_strides(on_cpu, view):
    pixels = view(picture(101, 101))
    expected = preprocess.normalize(preprocess.to_square_uint8(np.ascontiguousarray(pixels)))
    assert np.array_equal(resized(on_cpu, pixels, model_values(), 224), expected)


@pytest.mark.parametrize("side, size", [(1, 1), (2, 224), (3, 63), (17, 257), (223, 224), (225, 224), (500, 100)])
def test_no_access_outside_the_buffers(watched, side, size):
    done = run_watched(watched, side, size, tap_table(side, size).first)
    assert done.returncode == 0, done.stderr


def test_the_watcher_sees_one_pixel_too_many(watched):
    """Negative control: a table that starts before the line."""
    done = run_watched(watched, 63, 63, tap_table(63, 63).first - 64)
    assert done.returncode not in (0, 2, 3) and "AddressSanitizer" in done.stderr


def run_watched(program: Path, side: int, size: int, first: np.ndarray) -> subprocess.CompletedProcess[str]:
    table = tap_table(side, size)
    numbers = [side, size, table.most, *first.tolist(), *table.weight.ravel().tolist()]
    return subprocess.run([program], input=" ".join(map(str, numbers)), capture_output=True, text=True)


@pytest.mark.parametrize("at", [0, 1])
def test_arguments_have_the_kernels_types(on_cpu, at):
    work = cuda.launches(cuda.Square(64, 300, 900, 3, 1), 5, 224, cuda.Buffers(1, 2, 3, 4, 5))[at]
    sizes = (ctypes.c_int * 32)()
    count = getattr(on_cpu, f"sizes_{work.symbol}")(sizes)
    assert [ctypes.sizeof(a) for a in work.arguments] == list(sizes[:count])


def test_launches_refuse_what_the_kernels_cannot_do():
    buffers = cuda.Buffers(1, 2, 3, 4, 5)
    for frame, most, size in [(cuda.Square(64, 0, 3, 3, 1), 1, 224), (cuda.Square(64, 9, 27, 3, 1), 0, 224),
                              (cuda.Square(64, 9, 27, 3, 1), 1, 65536)]:  # fmt: skip
        with pytest.raises(ValueError, match="^side, size, most: expected"):
            cuda.launches(frame, most, size, buffers)
    with pytest.raises(ValueError, match="^strides: expected none negative"):
        cuda.launches(cuda.Square(64, 9, -27, 3, 1), 1, 224, buffers)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ptxas says of every kernel on every target."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    targets = [f"-gencode=arch={t.arch.replace('sm', 'compute')},code={t.arch}" for t in TARGETS.values()]
    output = tmp_path_factory.mktemp("nvcc") / "resize.fatbin"
    command = [nvcc, "-std=c++17", "-O3", "--fatbin", "--threads=2", "-Xptxas=-v", *targets, str(SOURCE), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    return done.stderr


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.arch)
def test_compiles_small_and_without_spills(compiled, target, symbol):
    report = re.search(rf"entry function '{symbol}' for '{target.arch}'(.*?)(?=Compiling entry|\Z)", compiled, re.S)
    assert report, compiled
    text = report[1]
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in text
    registers = int(re.search(r"Used (\d+) registers", text)[1])
    assert registers * cuda.THREADS * 4 <= target.registers_per_sm  # four blocks a processor, to hide the latency of loads
    assert " smem" not in text
