"""The resize kernels under Triton's interpreter, on tensors of the CPU.  Run by test_resize_triton.py, which sets the interpreter."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest
import torch

from fusedx.engine import preprocess
from fusedx.kernels.resize import reference
from fusedx.kernels.resize import triton as kernels

VALUES = torch.tensor(preprocess.LEVEL_VALUES)


@pytest.fixture(autouse=True)
def tall_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time goes by the number of programs, so each computes more rows; one test has those of the GPU."""
    monkeypatch.setattr(kernels, "ROWS", 64)


def picture(*shape: int) -> np.ndarray:
    """Noise with runs of black and white, where rounding and overflow would show first."""
    return np.clip(np.random.default_rng(shape).integers(-80, 336, shape), 0, 255).astype(np.uint8)


def on_kernels(pixels: torch.Tensor) -> np.ndarray:
    out = torch.full((len(pixels), 3, 224, 224), torch.nan)
    kernels.resize_normalize(pixels, VALUES, out)
    return out.numpy()


def on_host(pixels: np.ndarray) -> np.ndarray:
    return preprocess.normalize(preprocess.to_square_uint8(np.ascontiguousarray(pixels)))


@pytest.mark.parametrize("side", [1, 2, 3, 17, 63, 100, 223, 224, 225, 257, 512, 1411])
def test_has_the_bits_of_the_host(side):
    pixels = picture(side, side, 3)
    assert np.array_equal(on_kernels(torch.from_numpy(pixels)[None])[0], on_host(pixels))


@pytest.mark.parametrize("side", [17, 100])
def test_with_the_rows_of_the_gpu(side, monkeypatch):
    monkeypatch.undo()
    assert kernels.ROWS == 1
    pixels, out = picture(side, side, 3), torch.full((1, 3, 63, 63), torch.nan)
    kernels.resize_normalize(torch.from_numpy(pixels)[None], VALUES, out)
    assert np.array_equal(out[0].numpy(), preprocess.normalize(reference.bilinear(pixels, 63, 63)))


@pytest.mark.parametrize("level", [0, 255])
def test_black_stays_black_and_white_white(level):
    out = on_kernels(torch.full((1, 449, 449, 3), level, dtype=torch.uint8))
    assert np.array_equal(out[0], np.broadcast_to(VALUES.numpy()[:, level, None, None], (3, 224, 224)))


VIEWS = {
    "crop": lambda p: p[3:80, 20:97],
    "every second": lambda p: p[::2, ::2],
    "rgb of rgba": lambda p: torch.cat([p, p[..., :1]], dim=2)[..., :3],
    "planes": lambda p: p.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "transposed": lambda p: p.transpose(0, 1),
    "grey": lambda p: p[..., :1].expand(-1, -1, 3),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_any_strides(view):
    pixels = view(torch.from_numpy(picture(101, 101, 3)))
    assert np.array_equal(on_kernels(pixels[None])[0], on_host(pixels.numpy()))


@pytest.mark.parametrize("side", [3, 63, 225])
def test_reads_nothing_past_the_last_pixel(side):
    """The frame ends where a page begins that may not be read: one access too many would end this process."""
    page, size = mmap.PAGESIZE, side * side * 3
    readable = -(-size // page) * page
    memory = mmap.mmap(-1, readable + page)
    whole = np.frombuffer(memory, np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + readable), ctypes.c_size_t(page), 0) == 0
    pixels = whole[readable - size : readable].reshape(side, side, 3)
    pixels[:] = picture(side, side, 3)
    assert np.array_equal(on_kernels(torch.from_numpy(pixels)[None])[0], on_host(pixels))


def test_a_batch_of_one_size_and_every_row_its_own():
    pixels = picture(3, 150, 150, 3)
    out = on_kernels(torch.from_numpy(pixels))
    for row, frame in zip(out, pixels, strict=True):
        assert np.array_equal(row, on_host(frame))


def test_a_batch_with_strides():
    pixels = picture(5, 64, 64, 3)
    out = on_kernels(torch.from_numpy(pixels)[::2])
    assert np.array_equal(out[2], on_host(pixels[4]))


@pytest.mark.parametrize("size", [1, 63, 100, 257])
def test_other_sizes_of_the_output(size):
    """Sizes that no block divides; the look-up is the identity, with the channel in it."""
    values = (torch.arange(256)[None] + 1000 * torch.arange(3)[:, None]).float()
    pixels, out = picture(90, 90, 3), torch.full((1, 3, size, size), torch.nan)
    kernels.resize_normalize(torch.from_numpy(pixels)[None], values, out)
    expected = reference.bilinear(pixels, size, size).transpose(2, 0, 1) + 1000 * np.arange(3)[:, None, None]
    assert np.array_equal(out[0].numpy(), expected)


def test_writes_channels_last_and_nothing_beside():
    whole = torch.full((4, 3, 230, 230), torch.nan).to(memory_format=torch.channels_last)
    pixels = picture(2, 50, 50, 3)
    kernels.resize_normalize(torch.from_numpy(pixels), VALUES, whole[1:3, :, 2:226, 4:228])
    for row, frame in zip(whole[1:3, :, 2:226, 4:228].numpy(), pixels, strict=True):
        assert np.array_equal(row, on_host(frame))
    assert int(torch.isnan(whole).sum()) == whole.numel() - 2 * 3 * 224 * 224


GOOD, OUT = torch.zeros((1, 9, 9, 3), dtype=torch.uint8), torch.zeros((1, 3, 224, 224))


@pytest.mark.parametrize("name, arguments", [
    ("pixels", (GOOD.float(), VALUES, OUT)),
    ("pixels", (GOOD[0], VALUES, OUT)),
    ("pixels", (GOOD[:, :8], VALUES, OUT)),
    ("pixels", (GOOD[..., :1], VALUES, OUT)),
    ("pixels", (GOOD[:, :0, :0], VALUES, OUT)),
    ("pixels", (GOOD[:0], VALUES, OUT[:0])),
    ("pixels", (torch.zeros((), dtype=torch.uint8), VALUES, OUT)),
    ("values", (GOOD, VALUES[:2], OUT)),
    ("values", (GOOD, VALUES.double(), OUT)),
    ("values", (GOOD, VALUES.T.contiguous().T, OUT)),
    ("out", (GOOD, VALUES, OUT.half())),
    ("out", (GOOD, VALUES, OUT.expand(2, 3, 224, 224))),
    ("out", (GOOD, VALUES, OUT[..., :200])),
    ("out", (GOOD, VALUES, OUT[0])),
])  # fmt: skip
def test_refuses_other_tensors(name, arguments):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        kernels.resize_normalize(*arguments)
