"""FramePreprocessor on the CPU under Triton's interpreter; addresses are this process's.  Run by test_resize_triton.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusedx.engine import preprocess
from fusedx.engine.cuda import frames
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.errors import InputError
from fusedx.kernels.resize import triton as kernels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tall_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ROWS", 64)


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def foreign(array: np.ndarray) -> ForeignArray:
    return ForeignArray(array.ctypes.data, 0, array.shape, array.strides, array.dtype, None, array)


def expected(pixels: np.ndarray) -> np.ndarray:
    return preprocess.normalize(preprocess.to_square_uint8(pixels))


def run(*all_frames: frames.Frame) -> np.ndarray:
    out = torch.full((len(all_frames), 3, 224, 224), torch.nan)
    frames.FramePreprocessor(CPU).run(all_frames, out)
    return out.numpy()


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (5, 3), (223, 224), (512, 300), (300, 513), (64, 65), (65, 64), (67, 64)])
@pytest.mark.parametrize("where", [foreign, np.asarray], ids=["device", "host"])
def test_crops_resizes_and_normalises_with_the_bits_of_the_host(shape, where):
    pixels = picture(*shape, 3)
    assert np.array_equal(run(where(pixels))[0], expected(pixels))


def test_frames_of_all_kinds_keep_their_places():
    host = [picture(60, 80, 3), picture(60, 70, 3), picture(61, 61, 3), picture(90, 60, 3)]
    rgba = picture(60, 75, 4)[..., :3]
    grey = np.broadcast_to(picture(60, 60, 1), (60, 60, 3))
    mixed = [host[0], host[1], foreign(rgba), foreign(grey), host[2], foreign(host[0][::2, ::2]), host[3]]
    pixels = [host[0], host[1], rgba, grey, host[2], host[0][::2, ::2], host[3]]
    for row, frame in zip(run(*mixed), pixels, strict=True):
        assert np.array_equal(row, expected(frame))


def test_read_only_and_backward_host_frames():
    pixels = picture(40, 50, 3)
    pixels.setflags(write=False)
    assert np.array_equal(run(pixels, pixels[::-1, ::-1])[1], expected(np.ascontiguousarray(pixels[::-1, ::-1])))


def test_a_host_frame_may_change_at_once():
    pixels = picture(40, 50, 3)
    wanted, out = expected(pixels), torch.empty(1, 3, 224, 224)
    frames.FramePreprocessor(CPU).run([pixels], out)
    pixels[:] = 0
    assert np.array_equal(out[0].numpy(), wanted)


def test_a_run_longer_than_the_staging_memory(monkeypatch):
    monkeypatch.setattr(frames, "STAGED_BYTES", 2 * 30 * 30 * 3 + 1)
    pixels = [picture(30, 30 + i, 3) for i in range(5)]
    for row, frame in zip(run(*pixels), pixels, strict=True):
        assert np.array_equal(row, expected(frame))


def test_strided_output_and_normalised_images_as_they_are():
    work = frames.FramePreprocessor(CPU)
    out = torch.empty(2, 3, 224, 224).to(memory_format=torch.channels_last)
    pixels = [picture(30, 31, 3), picture(50, 31, 3)]
    work.run(pixels, out)
    assert np.array_equal(out[1].numpy(), expected(pixels[1]))
    images = np.random.default_rng(0).standard_normal((2, 224, 3, 224)).astype(np.float32).transpose(0, 2, 1, 3)
    work.copy(foreign(images), out)
    assert np.array_equal(out.numpy(), images)


@pytest.mark.parametrize("frame, reason", [
    (np.zeros((9, 9, 3), np.float32), "bad_array"), (np.zeros((9, 9), np.uint8), "bad_array"), (np.zeros((9, 9, 4), np.uint8), "bad_array"),
    (np.zeros((0, 9, 3), np.uint8), "empty"), (foreign(np.zeros((9, 9), np.uint8)), "bad_array"),
    (foreign(np.zeros((9, 9, 3), np.uint16)), "bad_array"),
])  # fmt: skip
def test_refuses_other_frames_before_any_work(frame, reason):
    out = torch.full((2, 3, 224, 224), torch.nan)
    with pytest.raises(InputError) as caught:
        frames.FramePreprocessor(CPU).run([picture(9, 9, 3), frame], out)
    assert caught.value.reason == reason and torch.isnan(out).all()


def test_refuses_an_output_of_another_size():
    with pytest.raises(ValueError, match="^out: expected float32 .2, 3, 224, 224."):
        frames.FramePreprocessor(CPU).run([picture(9, 9, 3)] * 2, torch.empty(3, 3, 224, 224))
    with pytest.raises(InputError, match="expected float32 .2, 3, 224, 224., got float32 .1, 3, 224, 224."):
        frames.FramePreprocessor(CPU).copy(foreign(np.zeros((1, 3, 224, 224), np.float32)), torch.empty(2, 3, 224, 224))
