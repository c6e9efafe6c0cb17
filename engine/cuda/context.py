"""Where a model's GPU work happens: one device, one stream, one lock, one memory pool for its graphs.

``torch.device("cpu")`` is accepted too: it has neither streams nor graphs, and with Triton's interpreter the whole engine runs on
it, which is how the tests run this code where there is no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fusedx.engine.cuda.streams import own_stream
from fusedx.engine.errors import DeviceError

#: One preparation at a time in a process: a capture must not meet the waits for the whole device that compilers time kernels with,
#: torch's allocator serves it differently from everyone else, and the libraries' settings that it needs are global.
PREPARING = threading.RLock()
#: How torch and Triton begin the text of an error that the driver reported.
_DRIVERS_ERRORS = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]")
_MEMORY_ADVICE = (
    "Use a smaller batch or fewer draws at once, a smaller precision, or free the GPU's memory in other processes; "
    "the model remains usable"
)


class Context:
    """``capture``: record graphs and replay them; otherwise every kernel is launched anew (the eager switch, same kernels)."""

    def __init__(self, device: torch.device, *, capture: bool) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        self.capture = capture and self.on_gpu
        # Replays of one model share its buffers, so its calls take turns; several models run side by side.
        self._lock = threading.RLock()
        self.torch_stream = own_stream(device, self) if self.on_gpu else None
        self._side: list[Any] = []
        self._pool: Any = None

    @property
    def stream(self) -> int:
        """The stream as the driver's integer, for launches outside torch."""
        return self.torch_stream.cuda_stream if self.torch_stream else 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """One call's work: this thread alone, on the model's stream; torch's errors become DeviceError."""
        with self._lock, torch.inference_mode(), _translated():
            if self.torch_stream is None:
                yield
                return
            with torch.cuda.device(self.device), torch.cuda.stream(self.torch_stream):
                yield

    @contextmanager
    def selected(self) -> Iterator[None]:
        """The device made current on this thread, as producers of device arrays require; their current stream is left alone.

        This thread alone, since a producer makes the model's stream wait, which must not happen in the middle of a capture.
        """
        if not self.on_gpu:
            yield
            return
        with self._lock, torch.cuda.device(self.device):
            yield

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What repeats ``work`` on the buffers it uses now: a captured graph's replay, or ``work`` itself.

        ``work`` runs once before it is captured, since libraries choose and compile their kernels in a first run.
        """
        if not self.capture:
            return work
        with PREPARING:
            work()
            torch.cuda.current_stream().synchronize()
            graph, pool = torch.cuda.CUDAGraph(), self._pool or torch.cuda.graph_pool_handle()
            # thread_local: what other threads do with the GPU meanwhile, another model's work for one, is no error.
            with torch.cuda.graph(graph, pool=pool, stream=self.torch_stream, capture_error_mode="thread_local"):
                work()
            self._pool = pool  # not before: torch does not take up a pool again that a failed capture alone had
        return graph.replay

    def upload(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy into a static buffer without waiting for it: from the device, or from the host through pinned memory."""
        if self.on_gpu and source.device.type == "cpu":
            source = source.pin_memory()  # torch keeps the block until the copy has run
        target.copy_(source, non_blocking=True)

    def fork(self, count: int) -> list[Any]:
        """Up to ``count`` further streams that start after what is queued now; join them with :meth:`join`."""
        if not self.on_gpu:
            return []
        here = torch.cuda.current_stream()
        while len(self._side) < count:
            self._side.append(own_stream(self.device, self))
        streams = self._side[:count]
        for stream in streams:
            stream.wait_stream(here)
        return streams

    def join(self, streams: list[Any]) -> None:
        """Go on when all of them are done."""
        here = torch.cuda.current_stream() if streams else None
        for stream in streams:
            here.wait_stream(stream)  # type: ignore[union-attr]


@contextmanager
def _translated() -> Iterator[None]:
    """torch's device errors as DeviceError, with what can be done about them."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        raise DeviceError(f"{first} {_MEMORY_ADVICE}") from error
    except RuntimeError as error:
        if isinstance(error, DeviceError) or not any(name in str(error) for name in _DRIVERS_ERRORS):
            raise
        text = str(error).splitlines()[0]
        if "out of memory" in text:  # outside torch's allocator: page-locked memory, a graph, a kernel
            raise DeviceError(f"{text}. {_MEMORY_ADVICE}") from error
        advice = "after a failed kernel the GPU takes no more work from this process: load the model in a new one"
        raise DeviceError(f"{text}; {advice}") from error
