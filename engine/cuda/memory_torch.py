"""Device memory from torch's allocator, on a torch stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch

from fusedx.engine.cuda import driver
from fusedx.engine.cuda.memory import Buffer, StagedMemory
from fusedx.engine.errors import DeviceError


class TorchMemory(StagedMemory):
    """See :class:`fusedx.engine.cuda.memory.DeviceMemory`.  ``stream``: None makes a new one.

    ``turn`` is entered with every use: what keeps others that share the stream from it, from capturing on it above all.

    Arrays on the device that are handed to work on this memory must come from work queued on the same stream.
    """

    def __init__(
        self, index: int, stream: torch.cuda.Stream | None = None, turn: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        super().__init__()
        self._turn = turn
        self._index, self._device = index, torch.device("cuda", index)
        with _errors("creating a stream"):
            self._stream = stream or torch.cuda.Stream(self._device)
        self.stream = int(self._stream.cuda_stream)

    def empty(self, nbytes: int) -> Buffer:
        """See the protocol.  The memory belongs to this object's stream, where torch may reuse it as soon as it is dropped."""
        with _errors(f"{nbytes} bytes of GPU memory"):
            owner = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        return Buffer(owner.data_ptr(), nbytes, owner)

    def zero(self, buffer: Buffer) -> None:
        """See the protocol."""
        with _errors("filling GPU memory"):
            buffer.owner.zero_()

    @contextmanager
    def _current(self) -> Iterator[None]:
        # One mode for all: a tensor that was made in inference mode cannot be written outside of it.
        with self._turn(), torch.inference_mode(), driver.current(self._index), torch.cuda.stream(self._stream):
            yield

    def _page_locked(self, nbytes: int) -> np.ndarray:
        with _errors(f"{nbytes} bytes of page-locked memory"):
            return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()

    def _copy_in(self, target: Buffer, offset: int, block: np.ndarray) -> None:
        with _errors("copying to the GPU"):
            target.owner[offset : offset + block.size].copy_(torch.from_numpy(block), non_blocking=True)

    def _copy_out(self, source: Buffer, offset: int, block: np.ndarray) -> None:
        with _errors("copying from the GPU"):
            torch.from_numpy(block).copy_(source.owner[offset : offset + block.size], non_blocking=True)

    def _wait(self) -> None:
        with _errors("waiting for the GPU"):
            self._stream.synchronize()


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """torch's errors as DeviceError with the advice of :mod:`fusedx.engine.cuda.driver`."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(f"{what}: {_first_line(error)}{driver.advice(driver.OUT_OF_MEMORY)}") from error
    except RuntimeError as error:
        said = _first_line(error)
        raise DeviceError(f"{what}: {said}{driver.advice_for(said)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
