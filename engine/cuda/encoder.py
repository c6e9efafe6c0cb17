"""The prior encoder on a GPU, by torch or TensorRT: captured once per bucket.

Libraries choose convolution algorithms by batch size, so a batched pass gives an image other last bits than a pass of its own.
By default every image is therefore evaluated alone, the images of a batch side by side on several streams inside one graph;
``batch_invariant=False`` evaluates them in one pass, which is faster for large batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fusedx.engine.cuda.buckets import IMAGE_BUCKETS, bucket, pieces
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.encoding import DeviceEncoding, Layout
from fusedx.engine.cuda.libraries import exact_libraries
from fusedx.engine.manifest import IMAGE_SIZE

#: Images in flight at a time when each is evaluated alone.
BRANCHES = 4

#: (images [B,3,224,224], branch) -> outputs, in the order of ``names``.  Calls of different branches may overlap.
Network = Callable[[torch.Tensor, int], tuple[torch.Tensor, ...]]


@dataclass(slots=True)
class _Buffers:
    """Static memory of one bucket: images float32 [B,3,224,224] and packed outputs float32 [B,width]."""

    images: torch.Tensor
    rows: torch.Tensor
    run: Callable[[], None]


class DeviceEncoder:
    """See :class:`fusedx.engine.encoder.Encoder`; ``run`` also takes a device tensor and returns a :class:`DeviceEncoding`."""

    def __init__(
        self, name: str, network: Network, outputs: list[str], context: Context, precision: str, *, batch_invariant: bool = True
    ) -> None:
        self.name, self.precision = name, precision
        self._network, self._names, self._context = network, outputs, context
        self._invariant = batch_invariant
        self._layout: Layout | None = None
        self._buffers: dict[int, _Buffers] = {}

    def run(self, images: np.ndarray | torch.Tensor) -> DeviceEncoding:
        """float32 [B,3,224,224], normalised, on the host or on the device -> every output; the caller owns the memory."""
        tensor = torch.from_numpy(np.ascontiguousarray(images, np.float32)) if isinstance(images, np.ndarray) else images
        with self._context.working():
            rows = []
            for piece in pieces(len(tensor), IMAGE_BUCKETS[-1]):
                part = tensor[piece]
                b = self._ready(bucket(len(part), IMAGE_BUCKETS))
                self._context.upload(b.images[: len(part)], part)
                b.run()
                rows.append(b.rows[: len(part)].clone())  # the graph's own buffer is overwritten by its next replay
            assert self._layout is not None
            return DeviceEncoding(self._layout, rows[0] if len(rows) == 1 else torch.cat(rows), self._context)

    def warm_up(self, images: int) -> None:
        """Compile and capture what a batch of ``images`` will run."""
        with self._context.working():
            for piece in pieces(images, IMAGE_BUCKETS[-1]):
                self._ready(bucket(piece.stop - piece.start, IMAGE_BUCKETS))

    def captured(self) -> list[int]:
        """Buckets that are ready."""
        return sorted(self._buffers)

    def _ready(self, size: int) -> _Buffers:
        if size not in self._buffers:
            images = torch.zeros(size, 3, IMAGE_SIZE, IMAGE_SIZE, device=self._context.device)
            if self._layout is None:
                # In the form that will run: each is compiled for itself.
                self._layout = Layout.of(self._evaluate(images[:1] if self._invariant else images, 0))
            rows = torch.zeros(size, self._layout.width, device=self._context.device)
            run = self._context.record(lambda: self._whole_batch(images, rows))
            self._buffers[size] = _Buffers(images, rows, run)
        return self._buffers[size]

    def _whole_batch(self, images: torch.Tensor, rows: torch.Tensor) -> None:
        assert self._layout is not None
        if not self._invariant or len(images) == 1:
            self._layout.write(self._evaluate(images, 0), rows)
            return
        branches = self._context.fork(min(BRANCHES, len(images)))
        for i in range(len(images)):
            branch = i % BRANCHES
            with torch.cuda.stream(branches[branch] if branches else None):
                self._layout.write(self._evaluate(images[i : i + 1], branch), rows[i : i + 1])
        self._context.join(branches)

    def _evaluate(self, images: torch.Tensor, branch: int) -> dict[str, torch.Tensor]:
        with exact_libraries():
            outputs = self._network(images, branch)
        return dict(zip(self._names, outputs, strict=True))
