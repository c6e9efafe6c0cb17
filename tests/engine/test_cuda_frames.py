"""How frames are ordered between streams and kept alive, with stand-ins for torch's streams and events."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from fusedx.engine.cuda import frames  # noqa: E402
from fusedx.engine.cuda.arrays.foreign_array import ForeignArray  # noqa: E402
from fusedx.engine.errors import InputError  # noqa: E402

GPU = torch.device("cuda", 0)


class Streams:
    """Writes down what happens, in order; ``done`` is how many recorded events the device has passed."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events, self.done = 0, 0

    def current(self, device: torch.device) -> SimpleNamespace:
        assert device == GPU
        return SimpleNamespace(wait_stream=lambda stream: self.log.append(f"wait {stream}"))

    def event(self) -> SimpleNamespace:
        self.events += 1
        number = self.events
        return SimpleNamespace(record=lambda stream: self.log.append("record"), query=lambda: number <= self.done)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """torch's streams replaced, and the work on memory written down in place of done."""
    made = Streams()
    monkeypatch.setattr(torch.cuda, "current_stream", made.current)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: "default")
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: f"external {handle}")
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(frames, "tensor_over", lambda array, device: made.log.append("read") or torch.zeros(array.shape))
    monkeypatch.setattr(frames, "resize_normalize", lambda pixels, values, out: made.log.append("resize"))
    return made


def preprocessor() -> frames.FramePreprocessor:
    work = frames.FramePreprocessor(torch.device("cpu"))
    work.device = GPU
    return work


class Owner:
    alive = 0

    def __init__(self) -> None:
        Owner.alive += 1

    def __del__(self) -> None:
        Owner.alive -= 1


def foreign(stream: int | None = None, device: int = 0, owner: object = None, shape: tuple = (9, 9, 3), dtype: str = "u1") -> ForeignArray:
    strides = tuple(np.empty(shape, dtype).strides)
    return ForeignArray(4096, device, shape, strides, np.dtype(dtype), stream, owner)


OUT = torch.empty(1, 3, 224, 224)


@pytest.mark.parametrize("stream, waits", [(None, []), (1, ["wait default"]), (2, ["wait external 2"]), (0x7000, ["wait external 28672"])])
def test_waits_for_the_producer_before_it_reads(streams, stream, waits):
    preprocessor().run([foreign(stream)], OUT)
    assert streams.log == [*waits, "read", "resize", "record"]
    streams.log.clear()
    preprocessor().copy(foreign(stream, shape=(1, 3, 224, 224), dtype="f4"), torch.empty(1, 3, 224, 224))
    assert streams.log == [*waits, "read", "record"]


def test_owners_live_until_the_device_has_read_their_memory(streams):
    work = preprocessor()
    work.run([foreign(owner=Owner())], OUT)
    work.run([foreign(owner=Owner())], OUT)
    assert Owner.alive == 2
    streams.done = 1
    work.run([foreign(owner=Owner())], OUT)
    assert Owner.alive == 2  # the first is gone
    streams.done = 3
    work.run([], torch.empty(0, 3, 224, 224))
    assert Owner.alive == 0


def test_owners_live_on_where_a_later_frame_fails(streams, monkeypatch):
    def fail(pixels: object, values: object, out: object) -> None:
        raise torch.OutOfMemoryError("full")

    work = preprocessor()
    monkeypatch.setattr(frames, "resize_normalize", fail)
    with pytest.raises(torch.OutOfMemoryError):
        work.run([foreign(owner=Owner())], OUT)
    assert Owner.alive == 1
    del work
    assert Owner.alive == 0


def test_another_gpu_is_refused_before_any_work(streams):
    with pytest.raises(InputError, match="on cuda:1, this model on cuda:0") as caught:
        preprocessor().run([foreign(), foreign(device=1)], torch.empty(2, 3, 224, 224))
    assert caught.value.reason == "unsupported" and streams.log == []
    with pytest.raises(InputError, match="on cuda:1"):
        preprocessor().copy(foreign(device=1, shape=(1, 3, 224, 224), dtype="f4"), OUT)


def test_memory_that_torch_had_to_copy_is_refused(monkeypatch):
    """torch moves what lies elsewhere without a word; the address gives it away."""
    monkeypatch.setattr(torch, "as_tensor", lambda view, device: torch.zeros(3))
    with pytest.raises(InputError, match="0x1000 is not in the memory of cuda:0"):
        frames.tensor_over(foreign(), GPU)


def test_a_tensor_over_memory_shares_it():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    grey = np.broadcast_to(pixels[..., :1], pixels.shape)
    for array in (pixels, pixels[::2, 1:], grey):
        described = ForeignArray(array.ctypes.data, 0, array.shape, array.strides, array.dtype, None, array)
        tensor = frames.tensor_over(described, torch.device("cpu"))
        assert np.array_equal(tensor.numpy(), array) and tensor.stride() == array.strides
    pixels[:] = 7
    assert (tensor == 7).all()


def test_host_frames_of_one_side_are_taken_together_up_to_the_limit(monkeypatch):
    host = [np.empty(shape, np.uint8) for shape in [(9, 12, 3), (12, 9, 3), (9, 9, 3), (8, 9, 3), (9, 9, 3)]]
    assert [(first, len(group)) for first, group in frames._groups(host)] == [(0, 3), (3, 1), (4, 1)]
    assert [(first, len(group)) for first, group in frames._groups([host[0], foreign(), host[0]])] == [(0, 1), (1, 1), (2, 1)]
    monkeypatch.setattr(frames, "STAGED_BYTES", 2 * 9 * 9 * 3)
    assert [(first, len(group)) for first, group in frames._groups(host)] == [(0, 2), (2, 1), (3, 1), (4, 1)]
    monkeypatch.setattr(frames, "STAGED_BYTES", 1)
    assert len(list(frames._groups(host))) == 5 and not list(frames._groups([]))
