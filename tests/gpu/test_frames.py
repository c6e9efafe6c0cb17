"""Frames on the GPU: the bits of engine/preprocess.py, whatever the size, the strides and the memory that they come from."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.engine import preprocess
from fusedx.inputs.device import read_device

SHAPES = [(2, 2), (3, 5), (5, 3), (63, 100), (100, 257), (223, 224), (224, 224), (225, 226), (512, 512), (300, 1411), (3000, 2000)]


@pytest.fixture
def device(gpu):
    """The GPU that is tested."""
    import torch

    return torch.device("cuda", gpu.index)


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def expected(pixels: np.ndarray) -> np.ndarray:
    return preprocess.normalize(preprocess.to_square_uint8(pixels))


def on_device(tensor):
    """As ``classify`` finds it: the array where it lies."""
    import torch

    stream = torch.cuda.current_stream().cuda_stream or 1  # 0 is no name of the legacy default stream
    found = read_device(tensor, device=tensor.device.index, stream=stream)
    assert found is not None
    return found.array


def run(device, *frames, out=None) -> np.ndarray:
    import torch

    from fusedx.engine.cuda.frames import FramePreprocessor

    out = torch.full((len(frames), 3, 224, 224), torch.nan, device=device) if out is None else out
    FramePreprocessor(device).run(frames, out)
    return out.cpu().numpy()


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_every_size_has_the_bits_of_the_host(device, shape, where):
    import torch

    pixels = picture(*shape, 3)
    frame = pixels if where == "host" else on_device(torch.from_numpy(pixels).to(device))
    assert np.array_equal(run(device, frame)[0], expected(pixels))


@pytest.mark.parametrize("view", [
    lambda a: a[::2, ::3], lambda a: a[1:-7, 13:], lambda a: a[..., :3], lambda a: a[..., 1], lambda a: a.swapaxes(0, 1)[..., :3],
], ids=["strided", "offset", "rgba", "grey", "transposed"])  # fmt: skip
def test_strided_views_of_the_device(device, view):
    import torch

    pixels = picture(311, 257, 4)
    wanted = view(pixels)
    wanted = np.repeat(wanted[..., None], 3, axis=2) if wanted.ndim == 2 else wanted[..., :3]
    assert np.array_equal(run(device, on_device(view(torch.from_numpy(pixels).to(device))))[0], expected(np.ascontiguousarray(wanted)))


def test_frames_of_both_memories_keep_their_places(device):
    import torch

    pixels = [picture(60 + 7 * (i % 3), 80 + i, 3) for i in range(9)]
    frames = [on_device(torch.from_numpy(p).to(device)) if i % 3 == 1 else p for i, p in enumerate(pixels)]
    for got, p in zip(run(device, *frames), pixels, strict=True):
        assert np.array_equal(got, expected(p))


def test_every_level_of_every_channel(device):
    """A picture of the network's own size is not resized: 256 levels in each channel, in each place of a row."""
    ramp = (np.arange(224 * 224 * 3, dtype=np.int64) * 89 % 256).astype(np.uint8).reshape(224, 224, 3)
    assert all(len(np.unique(ramp[..., channel])) == 256 for channel in range(3))
    assert np.array_equal(run(device, ramp)[0], expected(ramp))


def test_a_host_frame_may_change_as_soon_as_the_call_is_back(device):
    """Its copy is queued behind a long kernel."""
    import torch

    from fusedx.engine.cuda.frames import FramePreprocessor

    work, pixels = FramePreprocessor(device), picture(700, 800, 3)
    wanted, out = expected(pixels), torch.empty(1, 3, 224, 224, device=device)
    work.run([pixels], out)  # compiled
    torch.cuda._sleep(100_000_000)
    work.run([pixels], out.zero_())
    pixels[:] = 0
    assert np.array_equal(out[0].cpu().numpy(), wanted)


def test_an_output_of_other_strides(device):
    import torch

    pixels = [picture(90, 91, 3), picture(50, 31, 3)]
    out = torch.empty(2, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
    got = run(device, *pixels, out=out)
    assert all(np.array_equal(got[i], expected(p)) for i, p in enumerate(pixels))


def test_owners_are_let_go(device):
    """A frame of the device is held until the GPU has read it, and no longer than until the next call after that."""
    import torch

    from fusedx.engine.cuda.frames import FramePreprocessor

    work, out = FramePreprocessor(device), torch.empty(1, 3, 224, 224, device=device)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated(device)
    for _ in range(3):
        work.run([on_device(torch.from_numpy(picture(1000, 1000, 3)).to(device))], out)
        torch.cuda.synchronize()
    work.run([picture(8, 8, 3)], out)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated(device) - before < 3_000_000
