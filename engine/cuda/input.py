"""What comes in: frames of the host or of the device, to the encoder's input and to the digests that key the noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fusedx.engine.cuda.arrays.foreign_array import ForeignArray
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.frames import Frame, FramePreprocessor, tensor_over
from fusedx.engine.cuda.streams import own_stream
from fusedx.engine.manifest import IMAGE_SIZE


class CudaInput:
    """Crop, resize and normalisation on the device, with the bits of engine/preprocess.py."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._preprocess = FramePreprocessor(context.device)
        # Digests of device frames are copied beside the encoder's work, not behind it.
        self._copies = own_stream(context.device, self) if context.on_gpu else None

    def warm_up(self) -> None:
        """Compile; one form serves frames of every size."""
        self.stage([np.zeros((8, 8, 3), np.uint8)])

    def stage(self, frames: Sequence[Frame]) -> torch.Tensor:
        """uint8 [H,W,3] frames -> float32 [B,3,224,224] on the device; queued, not waited for."""
        with self._context.working():
            images = torch.empty(len(frames), 3, IMAGE_SIZE, IMAGE_SIZE, device=self._context.device)
            self._preprocess.run(frames, images)
            return images

    def images(self, array: ForeignArray) -> torch.Tensor:
        """Normalised images float32 [B,3,224,224] of a foreign array, copied on the device."""
        with self._context.working():
            images = torch.empty(array.shape, dtype=torch.float32, device=self._context.device)
            self._preprocess.copy(array, images)
            return images

    def digest(self, frame: ForeignArray) -> Callable[[], str]:
        """Start copying a staged device frame to the host; the result waits for it: SHA-256 of its RGB bytes, row by row."""
        with self._context.working():
            if self._copies is None:
                pixels = tensor_over(frame, self._context.device).contiguous().numpy()
                return lambda: _sha256(pixels)
            self._copies.wait_stream(torch.cuda.current_stream())  # which has waited for the frame's producer
            with torch.cuda.stream(self._copies):
                packed = tensor_over(frame, self._context.device).contiguous()
                host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
                host.copy_(packed, non_blocking=True)
                done = torch.cuda.Event()
                done.record(self._copies)

        def wait() -> str:
            done.synchronize()
            return _sha256(host.numpy())

        return wait


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()
